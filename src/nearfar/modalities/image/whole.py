"""Images seen whole, in their true aspect, for what is asked of places: nothing is cut away, and no place is moved."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.modalities.image.samples import Images


@dataclass(frozen=True)
class Whole:
    """Images in squares of one side: the longer side of each fills it, the image lies at the upper left, and the rest
    holds the mean that the encoder subtracts.

    side: of the squares, in pixels.  mean: C, in units of [0, 1].
    """

    samples: Images
    side: int
    mean: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def extent(self, i: int) -> tuple[int, int]:
        """Rows and columns of the square that image i takes."""
        aspect = float(self.samples.aspect[i])
        return max(1, round(self.side * min(1, 1 / aspect))), max(1, round(self.side * min(1, aspect)))

    def size(self, i: int) -> tuple[int, int]:
        """Width and height of the image as it is stored, in pixels."""
        return self.samples.original(i).size

    def view(self, index: Tensor) -> Tensor:
        """Some of the squares: n x C x side x side, float32 in [0, 1]."""
        pixels = self.samples.pixels(index).cpu()
        view = torch.tensor(self.mean).view(1, -1, 1, 1).repeat(len(index), 1, self.side, self.side)
        for row, i in enumerate(index.tolist()):
            height, width = self.extent(i)
            square = pixels[row, None].float() / 255
            if square.shape[2:] != (height, width):
                square = F.interpolate(square, (height, width), mode="bilinear", antialias=True)
            view[row, :, :height, :width] = square[0].clamp(0, 1)
        return view
