"""A folder of pictures with an attribute table: reading one, and making one of face-like drawings.

    python examples/face_pictures.py faces --count 1200

``--shares 0.2 0.05`` puts fewer pictures into train and val, and the rest into test, where they cost little time.

The drawings have four attributes. ``Male`` (hair) is the group. ``Smiling`` is correlated with it and drawn faintly, so
that a model has a reason to lean on the hair; ``Wearing_Hat`` is rare and correlated; ``Eyeglasses`` is clear and
independent of the group.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sparsejax.data import CelebA

NAMES = ("Male", "Smiling", "Wearing_Hat", "Eyeglasses")
_SIDE = 32
_SPLITS = ("train", "val", "test")
_SHARES = (0.6, 0.15)  # of train and val; the rest is test


def read_pictures(folder: Path) -> CelebA:
    """Read ``attributes.csv`` of a folder of pictures: columns ``file``, optionally ``split``, and attributes 0 or 1.

    Without ``split``, 60, 15 and 25 percent of the rows, drawn with seed 0, are train, val and test.

    Raises:
      ValueError: no column ``file``, no attribute, or a value that is not allowed; the row is named.
    """
    import pandas as pd

    path = Path(folder) / "attributes.csv"
    table = pd.read_csv(path, dtype={"file": str})
    names = [name for name in table.columns if name not in ("file", "split")]
    if "file" not in table.columns or not names:
        raise ValueError(
            f"read_pictures: file {str(path)!r} has columns {list(table.columns)}; expected file and attributes."
        )
    labels = table[names].to_numpy()
    bad = ~np.isin(labels, (0, 1)).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"read_pictures: file {str(path)!r} has {labels[row].tolist()} in row {row}; expected 0 and 1."
        )
    if "split" in table.columns:
        unknown = sorted(set(table["split"].astype(str)) - set(_SPLITS))
        if unknown:
            raise ValueError(
                f"read_pictures: file {str(path)!r} has split {unknown[0]!r}; expected {', '.join(_SPLITS)}."
            )
        split = table["split"].map(_SPLITS.index).to_numpy()
    else:
        split = np.random.default_rng(0).permutation(np.repeat(range(3), _sizes(len(table), _SHARES)))
    files = tuple(table["file"])
    return CelebA(Path(folder), tuple(names), labels.astype(np.uint8), split.astype(np.int8), files, None, ".")


def _sizes(count: int, shares: Sequence[float]) -> list[int]:
    train, val = (round(share * count) for share in shares)
    return [train, val, count - train - val]


def draw_faces(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures uint8[count, 32, 32, 3] and labels uint8[count, 4]."""
    rng = np.random.default_rng(seed)
    male = rng.random(count) < 0.5
    smiling = rng.random(count) < np.where(male, 0.3, 0.7)
    hat = rng.random(count) < np.where(male, 0.12, 0.02)
    glasses = rng.random(count) < 0.4
    labels = np.stack([male, smiling, hat, glasses], axis=1).astype(np.uint8)
    y, x = np.mgrid[0:_SIDE, 0:_SIDE].astype(float)
    pictures = np.empty((count, _SIDE, _SIDE, 3), np.uint8)
    for picture, (m, s, h, g) in zip(pictures, labels.astype(bool), strict=True):
        cx, cy = 16 + rng.normal(0, 1, 2)
        skin = rng.uniform(120, 220)
        image = np.full((_SIDE, _SIDE, 3), rng.uniform(60, 200))
        hair = ((x - cx) / 10) ** 2 + ((y - cy) / (9 if m else 13)) ** 2 < 1
        image[hair] = rng.uniform(20, 70)
        face = ((x - cx) / 8) ** 2 + ((y - cy - 2) / 9) ** 2 < 1
        image[face] = skin * np.array([1.0, 0.85, 0.7])
        for side in (-3, 3):
            eye = (x - cx - side) ** 2 + (y - cy) ** 2
            image[eye < 1.5] = 10
            if g:
                image[(eye > 4) & (eye < 8)] = 0
        curve = 0.18 * (x - cx) ** 2 * (-1 if s else 1)
        mouth = (np.abs(y - cy - 7 - curve) < 0.8) & (np.abs(x - cx) < 4)
        image[mouth] = 0.75 * image[mouth]
        if h:
            image[(y < cy - 6) & (np.abs(x - cx) < 11)] = (150, 30, 30)
        picture[:] = np.clip(image + rng.normal(0, 18, image.shape), 0, 255)
    return pictures, labels


def write_faces(folder: Path, count: int = 1200, seed: int = 0, shares: Sequence[float] = _SHARES) -> None:
    """Write the drawings as PNG files with ``attributes.csv``; ``shares`` of train and val, the rest is test."""
    import pandas as pd
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    pictures, labels = draw_faces(count, seed)
    files = [f"{number:05d}.png" for number in range(count)]
    for name, picture in zip(files, pictures, strict=True):
        Image.fromarray(picture).save(folder / name)
    split = np.repeat(_SPLITS, _sizes(count, shares))
    table = pd.DataFrame({"file": files, "split": split} | dict(zip(NAMES, labels.T, strict=True)))
    table.to_csv(folder / "attributes.csv", index=False)


def main() -> None:
    """Make a folder of drawings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    text = "shares of train and val; the rest is test (default 0.6 0.15)"
    parser.add_argument("--shares", type=float, nargs=2, default=_SHARES, metavar=("TRAIN", "VAL"), help=text)
    arguments = parser.parse_args()
    if min(arguments.shares) < 0 or sum(arguments.shares) > 1:
        parser.error(f"--shares has {arguments.shares}; expected two numbers of at least 0 whose sum is at most 1.")
    write_faces(arguments.folder, arguments.count, arguments.seed, arguments.shares)
    print(f"{arguments.count} pictures in {arguments.folder}")


if __name__ == "__main__":
    main()
