"""Clips of pictures that move: which way and how fast is the class, what moves is not. For learning checks and results.

A picture crosses a dark square, and comes in again where it leaves. Of each clip are
known the direction (4), the speed (2), and by both the motion (8).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

DIRECTIONS = {"right": (0, 1), "left": (0, -1), "down": (1, 0), "up": (-1, 0)}
SPEEDS = {"slow": 1, "fast": 3}


class Clips(NamedTuple):
    """videos: N x T x S x S x 3, uint8.  motion: N words such as "left slow".  picture: N, of which picture each is."""

    videos: np.ndarray
    motion: list[str]
    picture: np.ndarray


def render(
    pictures: np.ndarray,
    count: int,
    *,
    frames: int = 16,
    side: int = 32,
    seed: int = 0,
    ways: Sequence[str] = tuple(DIRECTIONS),
    faster: float = 0.0,
) -> Clips:
    """So many clips of pictures that take turns.  pictures: P x h x w x 4, uint8, with transparency.  ways: directions
    that there are; where some have no opposite, time has an arrow.  faster: px a frame that are added to the speed with
    each frame, as things that fall have it.
    """
    random = np.random.default_rng(seed)
    videos = np.empty((count, frames, side, side, 3), np.uint8)
    motion, picture = [], random.permutation(len(pictures))[np.arange(count) % len(pictures)]
    for i in range(count):
        way, speed = random.choice(list(ways)), random.choice(list(SPEEDS))
        motion.append(f"{way} {speed}")
        shape = pictures[picture[i]].astype(np.float32)
        cover, ground = shape[..., 3:] / 255, random.integers(0, 60)
        still = np.full((side, side, 3), ground, np.float32)
        h, w = shape.shape[:2]
        still[:h, :w] = shape[..., :3] * cover + ground * (1 - cover)
        still = still.round().astype(np.uint8)
        start, step = random.integers(0, side, 2), SPEEDS[speed]
        for t in range(frames):
            shift = start + round(t * step + faster * t**2 / 2) * np.array(DIRECTIONS[way])
            videos[i, t] = np.roll(still, tuple(shift), (0, 1))
    return Clips(videos, motion, picture)


def emoji(path: Path, side: int = 14) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Pictures of emoji, P x side x side x 4, and the group of each, by split: no base is in both."""
    held = dict(np.load(path))
    png, offsets = held["png"], held["offsets"]
    plain = held["skin_tone"] == ""
    pictures, groups = {}, {}
    for split in ("train", "test"):
        rows = np.flatnonzero(plain & (held["split"] == split))
        images = [Image.open(io.BytesIO(png[offsets[i] : offsets[i + 1]].tobytes())).convert("RGBA") for i in rows]
        pictures[split] = np.stack([np.asarray(image.resize((side, side), Image.Resampling.BOX)) for image in images])
        groups[split] = held["group"][rows]
    return pictures, groups


def inked(drawings: torch.Tensor, side: int = 14) -> np.ndarray:
    """Drawings, P x 1 x S x S with ink high, as white pictures with transparency."""
    small = torch.nn.functional.interpolate(drawings.float(), (side, side), mode="bilinear", antialias=True)
    alpha = (2 * small).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return np.concatenate([np.full_like(alpha, 255)] * 3 + [alpha], 3)


def two_cameras(scenes: int, *, frames: int = 32, side: int = 32, angle: float = 60.0, seed: int = 0) -> np.ndarray:
    """Three balls that wander, as two cameras see them: scenes x 2 x frames x side x side x 3, uint8.

    Each ball has a color of its own, in all scenes. The cameras look from the side, so many degrees apart, so that what
    they share are heights, and nearer balls hide others; grounds are of two colors, and differ from scene to scene.
    """
    random = np.random.default_rng(seed)
    colors = np.array([[230, 60, 50], [60, 200, 80], [70, 90, 235]], np.float32)
    y, x = np.mgrid[:side, :side] / (side / 2) - 1
    out = np.empty((scenes, 2, frames, side, side, 3), np.uint8)
    time = np.linspace(0, 1, frames)[:, None, None]
    for scene in range(scenes):
        rate, phase = (random.uniform(*ends, (2, 1, 3, 3)) for ends in ((0.3, 1.2), (0, 2 * np.pi)))
        place = 0.35 * np.sin(2 * np.pi * rate * time + phase).sum(0)  # frames x balls x 3
        for camera, turn in enumerate((0.0, np.radians(angle))):
            across = np.cos(turn) * place[..., 0] + np.sin(turn) * place[..., 1]
            away = np.cos(turn) * place[..., 1] - np.sin(turn) * place[..., 0]
            ground = np.array([40, 40, 60], np.float32) if camera == 0 else np.array([190, 180, 150], np.float32)
            ground += random.uniform(-25, 25, 3).astype(np.float32)
            for t in range(frames):
                picture = np.broadcast_to(ground, (side, side, 3)).copy()
                for ball in np.argsort(-away[t]):
                    inside = (x - across[t, ball]) ** 2 + (y + place[t, ball, 2]) ** 2 < 0.06
                    picture[inside] = colors[ball]
                out[scene, camera, t] = picture.clip(0, 255)
    return out


def write_cameras(folder: Path, videos: np.ndarray, split: list[str]) -> Path:
    """Such scenes as folders of frames, and the list of them: columns path, sequence, camera, split."""
    lines = ["path,sequence,camera,split"]
    for scene, cameras in enumerate(videos):
        for camera, frames in zip("ab", cameras, strict=True):
            home = folder / f"{scene:03d}{camera}"
            home.mkdir(parents=True)
            for t, picture in enumerate(frames):
                Image.fromarray(picture).save(home / f"{t:03d}.png", compress_level=1)
            lines.append(f"{home.name},{scene},{camera},{split[scene]}")
    (folder / "cameras.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "cameras.csv"
