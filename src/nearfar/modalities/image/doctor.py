"""What is in a folder of images."""

from __future__ import annotations

import torch

from nearfar.data.labels import some
from nearfar.files import is_not_utf8
from nearfar.modalities.examination import (
    Advice,
    Copies,
    Examination,
    batch_advice,
    common_warnings,
    epochs_advice,
    estimate,
    groups_advice,
    labeled,
    method_advice,
)
from nearfar.modalities.image.duplicates import duplicates
from nearfar.modalities.image.encoder import image_encoder
from nearfar.modalities.image.samples import Images


def examine(images: Images, *, encoder: str, size: int) -> Examination:
    """Look at every image, and time one step. encoder, size: what to time, and the side of its views."""
    copies = duplicates(images)
    aspect = images.aspect.quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
    facts = [
        ("images", f"{len(images):,}"),
        ("channels", {1: "1 (gray)", 3: "3 (color)"}.get(images.channels, str(images.channels))),
        ("width / height", f"{aspect[1]:.2f} in the middle, {aspect[0]:.2f} to {aspect[2]:.2f} for nine in ten"),
        ("kept as", f"squares of {images.side} px" + ("" if images.cached else ", decoded anew each time")),
        ("copies", f"{copies.exact:,} the same pixel by pixel, {copies.near:,} nearly the same"),
        ("labeled", labeled(images)),
    ]
    sound = "no broken files, no copies, no uneven classes"
    examination = Examination(samples=images, copies=copies, noun="images", facts=facts, sound=sound)
    if images.skipped:
        first = ", ".join(f"{name!r} ({why})" for name, why in images.skipped[:3])
        more = ", ..." if len(images.skipped) > 3 else ""
        examination.warnings.append(
            f"{len(images.skipped):,} files cannot be read: {first}{more}. Training leaves them out."
        )
    if odd := [name for name in images.names if is_not_utf8(name)]:
        examination.warnings.append(
            f"{len(odd):,} file names are not UTF-8 ({some(odd)}): other programs may not find these files. Rename "
            "them, for example with convmv -f latin1 -t utf8 -r --notest."
        )
    examination.warnings.extend(common_warnings(images, copies, examination.noun))
    examination.advice.extend(_advice(images, copies))
    view = torch.rand(16, images.channels, size, size)
    network = image_encoder(encoder, channels=images.channels, size=size)
    estimate(examination, network, (view, view.flip(3)), f"{encoder}, {size} px")
    return examination


def _advice(images: Images, copies: Copies) -> list[Advice]:
    method, batch = method_advice(images, "images"), batch_advice(len(images), 256)
    given = [method, batch]
    if images.channels == 1 and images.side <= 64:
        given.append(Advice("--views", "drawing", "small and gray: shape counts, and colors are not there to change"))
    elif images.channels == 3:
        given.append(Advice("--views", "simclr", "color images: crops and color changes, the usual recipe"))
    if method.value in ("simclr", "moco"):
        given.append(Advice("--temperature", "0.2", "for batches and queues of this size; lower pushes harder"))
    return [*given, epochs_advice(len(images), int(batch.value)), *groups_advice(copies)]
