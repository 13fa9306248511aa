"""Pack Omniglot's drawings as in src/nearfar/data: python examples/repack_drawings.py omniglot.npz drawings.npz

In: for each part (background, evaluation) an array PART_x32, N x 32 x 32, gray in 16 levels, 17 apart, ink high; beside
it PART_identity, the character, PART_writer, the drawer, and PART_names, alphabet/character. Out: two pixels a byte.
"""

from __future__ import annotations

import sys

import numpy as np

PARTS = {"train": "evaluation", "test": "background"}  # evaluation is whole and the larger


def main(source: str, target: str) -> None:
    omniglot = dict(np.load(source))
    packed = {}
    for part, name in PARTS.items():
        levels = omniglot[f"{name}_x32"].reshape(-1, 32 * 32) // 17  # N x 1024, 0 to 15
        packed[f"{part}_pixels"] = (levels[:, ::2] << 4 | levels[:, 1::2]).astype(np.uint8)  # N x 512
        packed[f"{part}_character"] = omniglot[f"{name}_identity"].astype(np.uint16)
        packed[f"{part}_drawer"] = omniglot[f"{name}_writer"].astype(np.uint8)
        packed[f"{part}_names"] = omniglot[f"{name}_names"]
    np.savez_compressed(target, **packed)


if __name__ == "__main__":
    main(*sys.argv[1:])
