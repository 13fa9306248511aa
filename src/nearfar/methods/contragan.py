from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nearfar.batch import Batch
from nearfar.distributed import local, normalize, share, world
from nearfar.errors import UserError
from nearfar.losses.classification import cross_entropy
from nearfar.losses.conditional import conditional_contrastive, data_to_data, hinge
from nearfar.method import Encoder, Method, Step, frozen_statistics
from nearfar.nn.biggan import Generator, measure
from nearfar.nn.heads import mlp
from nearfar.nn.momentum import follow, momentum_copy
from nearfar.nn.spectral import spectral
from nearfar.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, UnitInterval


class ContraGAN(Method):
    """Trains a generator of images of each class against the encoder, which contrasts images with classes.

    The encoder f is the trunk of the discriminator D. G makes an image of noise z and a class y. Players take turns:

        discriminator:  mean max(0, 1 - D(x)) + mean max(0, 1 + D(G(z, y))) + weight 2C(x)
        generator:      -mean D(G(z, y)) + weight 2C(G(z, y))
        2C_i = -log [(exp(p_i) + sum_{j != i, y_j = y_i} exp(s_ij)) / (exp(p_i) + sum_{j != i} exp(s_ij))]

    where p_i compares the embedding of image i with the proxy of its class, and s_ij with that of image j.

    Use it to make images: `nearfar generate RUN` writes them. It wants labels, one view without color changes, and far
    more steps than methods that only encode. Encoders without batch norm, such as biggan32, suit it.
    Note: Samples without a label are images of no class to the discriminator. The generator's batch norm is measured
    anew on 1,000 images when it is used.

    Args:
        condition: How the discriminator knows of classes: 2c; d2dce, ReACGAN's loss in its place; projection, a term of
            D(x); classifier, cross-entropy; none, as all images were of one class, which takes no labels.
        weight: Of 2C, D2D-CE or cross-entropy.
        temperature: Divides the similarities.
        dim: Width of the embedding that 2C and D2D-CE compare.
        positive_margin: Of D2D-CE: the cosine with the proxy from which an image is near enough.
        width: Of the generator: a quarter of its channels at 32 px.
        latent: Numbers of noise behind an image.
        class_dim: Width of the generator's embedding of classes.
        discriminator_steps: Steps of the discriminator before each of the generator; 5 for CIFAR-10 in the paper.
        ema: Of the copy of the generator that makes the images: how much of it stays in a step.
        ema_start: Steps of the generator until which the copy is the generator itself.

    Kang and Park 2020, "ContraGAN: Contrastive Learning for Conditional Image Generation", arXiv 2006.12681. D2D-CE:
    Kang et al. 2021, arXiv 2111.01118.
    """

    title = "ContraGAN: Contrastive Learning for Conditional Image Generation (Kang and Park 2020)"
    family = "image generation"
    needs_labels = True
    needs_pixels = True
    takes_turns = True
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
        class_dim: PositiveInt = 128,
        discriminator_steps: PositiveInt = 1,
        ema: UnitInterval = 0.9999,
        ema_start: NonNegativeInt = 1000,
    ) -> None:
        super().__init__(encoder)
        self.needs_labels = condition != "none"  # pyright: ignore[reportAttributeAccessIssue]
        if self.needs_labels and not classes:
            raise UserError(f"--condition {condition} makes images of classes, and none are known: --condition none")
        self.classes = classes if self.needs_labels else 0
        self.generator = Generator(
            classes=self.classes, channels=channels, size=size, width=width, latent=latent, class_dim=class_dim
        )
        self.slow = momentum_copy(self.generator)
        self.critic = self._head(encoder.dim, 1)
        embedded = {"2c": dim, "d2dce": dim, "classifier": self.classes}.get(condition, 0)
        self.projector = self._head(encoder.dim, embedded) if embedded else None
        proxies = {"2c": dim, "d2dce": dim, "projection": encoder.dim}.get(condition, 0)
        self.proxies = spectral(nn.Embedding(classes, proxies)) if proxies else None
        self.condition, self.weight, self.temperature, self.positive_margin = (
            condition, weight, temperature, positive_margin,
        )  # fmt: skip
        self.discriminator_steps, self.ema, self.ema_start = discriminator_steps, ema, ema_start

    @classmethod
    def learns_from_labels(cls, arguments: Mapping[str, Any]) -> bool:
        return arguments.get("condition") != "none"

    @staticmethod
    def _head(before: int, after: int) -> nn.Module:
        head = mlp((before, after), norm=False, bias=True, last_bias=True)
        spectral(head[0])
        return head

    @property
    def rounds(self) -> float:
        """Turns of the generator that are over when this step is: a whole number where it is its own."""
        return (self.clock.step + 1) / (self.discriminator_steps + 1)

    def turn(self) -> Sequence[nn.Module]:
        if self.rounds.is_integer():
            return [self.generator]
        return [part for part in (self.encoder, self.critic, self.projector, self.proxies) if part is not None]

    def forward(self, batch: Batch) -> Step:
        (view,) = batch.views
        generates = self.rounds.is_integer()
        z, label = (local(x).to(view.device) for x in self.draw(world() * len(batch), self.clock.generator(1)))
        with torch.set_grad_enabled(generates and torch.is_grad_enabled()):
            made = self.generator(z.to(view.dtype), label)
        if made.shape != view.shape:
            raise UserError(
                f"the generator makes images {tuple(made.shape[1:])}, and views are {tuple(view.shape[1:])}"
            )
        if generates:
            if self.representations is not None:
                with torch.no_grad():
                    self.embed(view)
            h = self.embed(made, self.encoder)
            loss = -share(self.score(h, label)) + self.weight * self.conditioned(h, label)
            return Step(loss, {"generator": loss.detach()})
        real = self.embed(view)
        with frozen_statistics(self.encoder):
            fake = self.embed(made, self.encoder)
        known = self.conditioned(real, batch.label)
        real, fake = self.score(real, batch.label), self.score(fake, label)
        log = {"score_real": share(real), "score_generated": share(fake), "condition": known}
        return Step(hinge(real, fake) + self.weight * known, {name: value.detach() for name, value in log.items()})

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noise of n images, n x latent, and a class of each, all as likely; 0 where there are none."""
        z = torch.randn(n, self.generator.latent, generator=generator)
        return z, torch.randint(max(1, self.classes), (n,), generator=generator)

    def measure(self, generator: torch.Generator, images: int = 1000) -> None:
        """Prepare to generate: batch norm takes the statistics of so many images."""
        measure(self.slow, *self.draw(images, generator))

    @torch.no_grad()
    def generate(self, z: Tensor, label: Tensor) -> Tensor:
        """Images of noise and classes, or of shares of these, after `measure`: N x channels x size x size in [0, 1]."""
        return self.slow(z, label)

    def score(self, h: Tensor, label: Tensor) -> Tensor:
        """D, of images that are of these classes: N."""
        score = self.critic(h)[:, 0]
        if self.condition == "projection" and self.proxies is not None:
            score = score + torch.where(label >= 0, (h * self.proxies(label.clamp(min=0))).sum(1), 0)
        return score

    def conditioned(self, h: Tensor, label: Tensor) -> Tensor:
        """The share of the loss that asks whether images are of their classes."""
        if self.projector is None:
            return h.new_zeros(())
        z = self.projector(h)
        if self.proxies is None:
            return cross_entropy(z, label)
        z, proxy = normalize(z), normalize(self.proxies(label.clamp(min=0)))
        if self.condition == "2c":
            return conditional_contrastive(z, proxy, label, temperature=self.temperature)
        return data_to_data(z, proxy, label, temperature=self.temperature, margin=self.positive_margin)

    def after_step(self, step: Step) -> None:
        if self.rounds.is_integer():
            follow(self.slow, self.generator, self.ema if self.rounds > self.ema_start else 0.0)
