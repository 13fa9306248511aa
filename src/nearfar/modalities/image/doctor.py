"""What is in a folder of images."""

from __future__ import annotations

import math

import torch

from nearfar.data.labels import some
from nearfar.errors import counted
from nearfar.files import is_not_utf8
from nearfar.modalities.examination import Advice, Examination, common_warnings, labeled, parts
from nearfar.modalities.image.duplicates import duplicates
from nearfar.modalities.image.samples import Images
from nearfar.modalities.image.settings import Settings


def examine(images: Images) -> Examination:
    """Look at every image."""
    copies = duplicates(images)
    aspect = images.aspect.quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
    facts = [
        ("images", f"{len(images):,}" + parts(images)),
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
            f"{counted(len(images.skipped), 'files')} cannot be read: {first}{more}. Training leaves them out."
        )
        examination.flags.extend(_max_bad(images))
    if odd := [name for name in images.names if is_not_utf8(name)]:
        are = "1 file name is" if len(odd) == 1 else f"{len(odd):,} file names are"
        examination.warnings.append(
            f"{are} not UTF-8 ({some(odd)}): other programs may not find these files. Rename "
            "them, for example with convmv -f latin1 -t utf8 -r --notest."
        )
    examination.warnings.extend(common_warnings(images, copies, examination.noun))
    return examination


def _max_bad(images: Images) -> list[Advice]:
    """Where more files are broken than training allows: the share that it must allow."""
    share = len(images.skipped) / (len(images) + len(images.skipped))
    if share <= Settings().max_bad:
        return []
    return [Advice("max_bad", math.ceil(100 * share) / 100, f"{share:.1%} of the files cannot be read")]
