"""What is in a folder of pictures."""

from __future__ import annotations

import torch

from nearfar.data.image import Images
from nearfar.doctor.examination import (
    Advice,
    Examination,
    batch_advice,
    common_warnings,
    epochs_advice,
    estimate,
    groups_advice,
    labelled,
    method_advice,
)
from nearfar.duplicates import Duplicates, duplicates
from nearfar.encoders.image import image_encoder


def examine(images: Images, *, encoder: str, size: int) -> Examination:
    """Look at every picture, and time one step. encoder, size: what to time, and the side of its views."""
    copies = duplicates(images)
    aspect = images.aspect.quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
    facts = [
        ("pictures", f"{len(images):,}"),
        ("channels", {1: "1 (grey)", 3: "3 (colour)"}.get(images.channels, str(images.channels))),
        ("width / height", f"{aspect[1]:.2f} in the middle, {aspect[0]:.2f} to {aspect[2]:.2f} for nine in ten"),
        ("kept as", f"squares of {images.side} px" + ("" if images.cached else ", decoded anew each time")),
        ("copies", f"{copies.exact:,} the same pixel by pixel, {copies.near:,} nearly the same"),
        ("labelled", labelled(images)),
    ]
    sound = "no broken files, no copies, no uneven classes"
    found = Examination(samples=images, copies=copies, noun="pictures", facts=facts, sound=sound)
    if images.skipped:
        first = ", ".join(f"{name!r} ({why})" for name, why in images.skipped[:3])
        more = ", ..." if len(images.skipped) > 3 else ""
        found.warnings.append(f"{len(images.skipped):,} files cannot be read: {first}{more}. Training leaves them out.")
    found.warnings.extend(common_warnings(images, copies, found.noun))
    found.advice.extend(_advice(images, copies))
    view = torch.rand(16, images.channels, size, size)
    network = image_encoder(encoder, channels=images.channels, size=size)
    estimate(found, network, (view, view.flip(3)), f"{encoder}, {size} px")
    return found


def _advice(images: Images, copies: Duplicates) -> list[Advice]:
    method, batch = method_advice(images, "pictures"), batch_advice(len(images), 256)
    given = [method, batch]
    if images.channels == 1 and images.side <= 64:
        given.append(Advice("--views", "drawing", "small and grey: shape counts, and colours are not there to change"))
    elif images.channels == 3:
        given.append(Advice("--views", "simclr", "colour pictures: crops and colour changes, the usual recipe"))
    if method.value in ("simclr", "moco"):
        given.append(Advice("--temperature", "0.2", "for batches and queues of this size; lower pushes harder"))
    return [*given, epochs_advice(len(images), int(batch.value)), *groups_advice(copies)]
