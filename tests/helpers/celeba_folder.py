"""A folder in the layout of CelebA with a few small images that the tests make."""

from __future__ import annotations

from pathlib import Path

import numpy as np

NAMES = ("Male", "Smiling", "Young", "Oval_Face")
COUNTS = (48, 20, 24)


def make_celeba(root: Path) -> np.ndarray:
    """Write the folder; a smile is a bright upper half. Return the labels in the order of the files' names."""
    from PIL import Image

    rng = np.random.default_rng(0)
    folder = root / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    total = sum(COUNTS)
    labels = rng.integers(0, 2, (total, len(NAMES)))
    files = [f"{i + 1:06d}.jpg" for i in range(total)]
    for name, row in zip(files, labels, strict=True):
        pixels = rng.integers(0, 80, (24, 20, 3))
        pixels[:12] += 150 * row[1]
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "img_align_celeba" / name, quality=95)
    rows = [f"{name} {' '.join(f'{2 * v - 1:2d}' for v in row)}" for name, row in zip(files, labels, strict=True)]
    (folder / "list_attr_celeba.txt").write_text("\n".join([str(total), " ".join(NAMES) + " ", *rows]) + "\n")
    split = np.repeat([0, 1, 2], COUNTS)
    lines = [f"{name} {s}" for name, s in zip(files, split, strict=True)]
    (folder / "list_eval_partition.txt").write_text("\n".join(reversed(lines)) + "\n")  # another order
    people = [f"{name} {i % 30 + 1}" for i, name in enumerate(files)]
    (folder / "identity_CelebA.txt").write_text("\n".join(people) + "\n")
    return labels
