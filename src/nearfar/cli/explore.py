"""`nearfar explore DIR`: embeddings on a page of their own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from nearfar.cli.embeddings import OfDir, insist_files
from nearfar.cli.flags import parsed
from nearfar.cli.printing import print
from nearfar.cli.use import TrustArg
from nearfar.errors import UserError, counted
from nearfar.files import name_text
from nearfar.ranges import NonNegativeInt, PositiveInt, Seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explore(OfDir):
    """A page to explore embeddings: every sample a point, near what it is like. Points are colored by any column, found
    by text in names and columns, chosen with a lasso and saved as a CSV; images are shown where the pointer is. The
    page is one file, and loads nothing."""

    out: str = "explore.html"
    """Where the page goes, a file .html."""
    projection: Literal["pca", "tsne"] = "pca"
    """How points are placed: pca, two principal components of all; tsne, for 5,000 points at most, which shows small
    groups better."""
    points: PositiveInt = 200_000
    """The most points; of more samples as many are drawn. At most 200,000."""
    pictures: NonNegativeInt = 3_000
    """Of images: how many have a picture, evenly drawn; 0 for none. A picture takes some 1.5 kB of the page."""
    run: str = ""
    """The run that made the embeddings, for pictures, where it was moved."""
    data: str = ""
    """The data, for pictures, where they were moved."""
    seed: Seed = 0
    """Of what is drawn, and of tsne."""
    trust: TrustArg = False

    def check(self) -> None:
        super().check()
        insist_files(self.out, "", force=self.force, page_flag="--out")
        if self.points > 200_000:
            raise UserError(f"--points {self.points}: a page shows 200,000 at most")


def explore(argv: list[str]) -> int:
    """Write the page."""
    asked = parsed(Explore, "explore", argv)
    from nearfar.data.samples import drawn
    from nearfar.embeddings import explore as made

    held = asked.held()
    rows = drawn(len(held), asked.points, asked.seed)
    if asked.projection == "tsne" and len(rows) > made.TSNE_MOST:
        made.by_tsne(held, rows, asked.seed)  # which says so, before pictures are read
    shown = None
    if asked.pictures:
        some = rows[drawn(len(rows), asked.pictures, asked.seed)]
        try:
            shown = made.pictures(held, held.run(asked.run, trust=asked.trust), some.tolist(), asked.data)
        except UserError as error:
            if asked.run or asked.data:
                raise
            print(f"Without pictures: {error}")
    title = name_text(Path(asked.directory).resolve().name)
    how = made.save(
        Path(asked.out),
        held,
        title=title,
        projection=asked.projection,
        points=asked.points,
        shown=shown,
        seed=asked.seed,
    )
    size = Path(asked.out).stat().st_size / 2**20
    part = f", drawn of {len(held):,}" if len(rows) < len(held) else ""
    print(f"{counted(len(rows), held.index['noun'])}{part}. {how}.")
    if shown:
        print(f"{len(shown['rows']):,} of them have a picture (--pictures).")
    print(f"Page: {asked.out} ({size:.1f} MiB)")
    return 0
