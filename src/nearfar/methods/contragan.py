from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from nearfar.batch import Batch
from nearfar.distributed import local, share, world
from nearfar.errors import UserError
from nearfar.losses.conditional import hinge
from nearfar.method import Encoder, Method, Step, frozen_statistics
from nearfar.nn.biggan import Generator
from nearfar.nn.critic import Critic
from nearfar.nn.momentum import follow, momentum_copy
from nearfar.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, UnitInterval


class ContraGAN(Method):
    """Trains a generator of images of each class against the encoder, which contrasts images with classes.

    The encoder is the trunk of the discriminator D. G makes an image of noise z and a class y. Players take turns; p_i
    compares image i with the proxy of its class, and s_ij with image j:

        discriminator:  mean max(0, 1 - D(x)) + mean max(0, 1 + D(G(z, y))) + weight 2C(x)
        generator:      -mean D(G(z, y)) + weight 2C(G(z, y))
        2C_i = -log [(exp(p_i) + sum_{j != i, y_j = y_i} exp(s_ij)) / (exp(p_i) + sum_{j != i} exp(s_ij))]

    Use it to make images: `nearfar generate RUN` writes them. It wants labels, one view without color changes, and far
    more steps than methods that only encode. Encoders without batch norm, such as biggan32, suit it.
    Note: To D, samples without a label are images of no class. The paper's copy of G begins after 1,000 of its steps.

    Args:
        condition: How D knows of classes: 2c; d2dce, ReACGAN's loss in its place; projection, a term of D(x);
            classifier, cross-entropy; none, as if all images were of one class, which takes no labels.
        weight: Of 2C, D2D-CE or cross-entropy.
        temperature: Divides the similarities.
        dim: Width of the embedding that 2C and D2D-CE compare.
        positive_margin: Of D2D-CE: the cosine with the proxy from which an image is near enough.
        width: Of the generator: a quarter of its channels at 32 px.
        latent: Numbers of noise behind an image.
        discriminator_steps: Steps of the discriminator before each of the generator; 5 for CIFAR-10 in the paper.
        ema: Of the copy of the generator that makes the images: how much stays in a step, at first less: n / (n + 9).

    Kang and Park 2020, "ContraGAN: Contrastive Learning for Conditional Image Generation", arXiv 2006.12681.
    """

    title = "ContraGAN: Contrastive Learning for Conditional Image Generation (Kang and Park 2020)"
    family = "image generation"
    without_labels = ("condition", "none")
    needs_labels = needs_pixels = takes_turns = generates = True
    most_views = 1

    def __init__(
        self,
        encoder: Encoder,
        *,
        classes: int,
        channels: int = 3,
        size: int = 32,
        condition: Literal["2c", "d2dce", "projection", "classifier", "none"] = "2c",
        weight: NonNegativeFloat = 1.0,
        temperature: PositiveFloat = 1.0,
        dim: PositiveInt = 512,
        positive_margin: UnitInterval = 0.98,
        width: PositiveInt = 32,
        latent: PositiveInt = 80,
        discriminator_steps: PositiveInt = 1,
        ema: UnitInterval = 0.9999,
    ) -> None:
        super().__init__(encoder)
        if condition != "none" and not classes:
            raise UserError(f"--condition {condition} makes images of classes, and none are known: --condition none")
        known = {"classes": 0 if condition == "none" else classes, "channels": channels, "size": size}
        self.generator = Generator(**known, width=width, latent=latent)
        self.slow = momentum_copy(self.generator)
        self.critic = Critic(encoder.dim, classes, condition, dim=dim, temperature=temperature, margin=positive_margin)
        self.weight, self.discriminator_steps, self.ema = weight, discriminator_steps, ema

    @property
    def rounds(self) -> float:
        """Turns of the generator that are over when this step is: a whole number where it is its own."""
        return (self.clock.step + 1) / (self.discriminator_steps + 1)

    def moving(self) -> Sequence[nn.Module]:
        return [self.generator] if self.rounds.is_integer() else [self.encoder, self.critic]

    def forward(self, batch: Batch) -> Step:
        (view,) = batch.views
        z, label = (local(x).to(view.device) for x in self.generator.draw(world() * len(batch), self.clock.generator()))
        with torch.set_grad_enabled(self.rounds.is_integer() and torch.is_grad_enabled()):
            made = self.generator(z.to(view.dtype), label)
        if made.shape != view.shape:
            raise UserError(f"images of {tuple(made.shape[1:])} are made, and views are {tuple(view.shape[1:])}")
        if self.rounds.is_integer():
            if self.representations is not None:
                self.embed(view)  # for the loop to look at
            score, asked = self.critic(self.embed(made, self.encoder), label)
            loss = -share(score) + self.weight * asked
            return Step(loss, {"generator": loss.detach()})
        real, asked = self.critic(self.embed(view), batch.label)
        with frozen_statistics(self.encoder):
            fake = self.critic.score(self.embed(made, self.encoder), label)
        log = {"score_real": share(real), "score_generated": share(fake), "condition": asked}
        return Step(hinge(real, fake) + self.weight * asked, {name: value.detach() for name, value in log.items()})

    def after_step(self, step: Step) -> None:
        if self.rounds.is_integer():
            follow(self.slow, self.generator, min(self.ema, self.rounds / (self.rounds + 9)))
