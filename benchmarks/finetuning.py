"""``python -m sparsejax_bench.finetuning``: fine-tuning a pruned ResNet-18 on pictures, end to end, against PyTorch.

``make FOLDER`` writes ``FOLDER/pictures`` (JPEG files in classes) and ``FOLDER/pruned.pt``, a ResNet-18 whose
convolutions but the first are pruned to 95 % by ``torch.nn.utils.prune``. Weights and pictures are random: times do not
depend on them. ``torch FOLDER`` trains both in turn, eight steps each: ours as ``sparsejax finetune`` does, and the
dense network in PyTorch (oneDNN, contiguous and channels-last) with a ``DataLoader`` that reads and changes the same
files in the same way. The time of a round has everything in it, waiting for data too.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .peers import resnet_torch

_CLASSES = 10
_STEPS = 8  # of each in a round: loaders read ahead in the turns of others, which is a small part of so many
_WORKERS = 2  # threads of ours, processes of PyTorch's
_MEAN, _STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
_LAYOUTS = ("contiguous", "channels_last")


def main(words: Sequence[str] | None = None) -> None:
    """Write the files, or train and print the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="write pictures and the pruned network")
    make.add_argument("folder", type=Path)
    make.add_argument("--pictures", type=int, default=2000, help="in 10 classes; a fifth of them are for the test")
    make.add_argument("--sparsity", type=float, default=0.95)
    against = commands.add_parser("torch", help="train ours and PyTorch's in turn")
    against.add_argument("folder", type=Path)
    against.add_argument("--size", type=int, default=96, help="pixels of the crop (default 96)")
    against.add_argument("--batch", type=int, default=32, help="pictures per step (default 32)")
    against.add_argument("--rounds", type=int, default=9, help="of eight steps each, after one that compiles")
    options = parser.parse_args(words)
    if options.command == "make":
        write_pictures(options.folder / "pictures", options.pictures)
        write_network(options.folder / "pruned.pt", options.sparsity)
    else:
        against_torch(options.folder, options.size, options.batch, options.rounds)


def write_pictures(folder: Path, count: int, shape: tuple[int, int] = (112, 128)) -> None:
    """Write JPEG files of random pixels: ``folder/train/CLASS/N.jpg`` and ``folder/test/CLASS/N.jpg``."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for label, number in itertools.product(range(_CLASSES), range(count // _CLASSES)):
        split = "test" if number % 5 == 4 else "train"
        file = folder / split / f"class{label}" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(file)


def write_network(file: Path, sparsity: float) -> None:
    """Write the state dict of a ResNet-18 with ``weight_orig`` and ``weight_mask`` of its convolutions."""
    import torch
    from torch.nn.utils import prune

    net = _network(torch)
    for name, module in net.named_modules():
        if isinstance(module, torch.nn.Conv2d) and name != "conv1":
            prune.l1_unstructured(module, "weight", amount=sparsity)
    torch.save(net.state_dict(), file)


def against_torch(folder: Path, size: int, batch: int, rounds: int) -> None:
    """Train in turn, and print medians and the ratio of each round."""
    import sparsejax
    from sparsejax.train.results._ratios import ratio_text

    sparsejax.configure()
    with tempfile.TemporaryDirectory() as out:
        steps = _STEPS * (rounds + 1)
        walks = {"sparsejax": our_steps(folder, size, batch, steps, out)}
        walks |= {f"torch, {layout}": torch_steps(folder, size, batch, layout) for layout in _LAYOUTS}
        seconds = alternate(walks, rounds + 1)
    kept = {name: times[1:] for name, times in seconds.items()}  # the first round compiles, and starts the workers
    for name, times in kept.items():
        print(f"{name}: {1e3 * statistics.median(times) / _STEPS:.0f} ms a step, with waiting for data")
    ours, *others = kept
    best = min(others, key=lambda name: statistics.median(kept[name]))
    print(f"against {best}: {ratio_text([b / a for a, b in zip(kept[ours], kept[best], strict=True)])}")


def alternate(walks: dict[str, Iterator[Any]], rounds: int) -> dict[str, list[float]]:
    """Take a few steps of each in turn; return the seconds of each round by name."""
    seconds: dict[str, list[float]] = {name: [] for name in walks}
    for _, (name, walk) in itertools.product(range(rounds), walks.items()):
        begin = time.perf_counter()
        for _ in range(_STEPS):
            next(walk)
        seconds[name].append(time.perf_counter() - begin)
    return seconds


def our_steps(folder: Path, size: int, batch: int, steps: int, out: str) -> Iterator[Any]:
    """Yield after each step of `sparsejax finetune` with its defaults."""
    from sparsejax import train

    pictures = len(list((folder / "pictures" / "train").glob("*/*")))
    epochs = -(-(steps + 1) // max(1, pictures // batch))
    run = train.TrainRun(
        train.TrainConfig(
            data=f"folder:{folder / 'pictures'}",
            source=str(folder / "pruned.pt"),
            method="fixed",
            model="resnet18",
            size=size,
            batch_size=batch,
            epochs=epochs,
            learning_rate=0.01,
            weight_decay=5e-4,
            crop="shift",
            flip=True,
        ),
        out,
    )
    states = run.states()
    next(states)  # before the first step
    return states


def torch_steps(folder: Path, size: int, batch: int, layout: str) -> Iterator[float]:
    """Yield the loss of each step of dense training in PyTorch; the pruned weights are zeros that move."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    state = torch.load(folder / "pruned.pt", weights_only=True)
    masks = {name.removesuffix("_mask"): state[name] for name in state if name.endswith("_mask")}
    plain = {n.removesuffix("_orig"): t * masks.get(n.removesuffix("_orig"), 1) for n, t in state.items()}
    net = _network(torch)
    net.load_state_dict({name: tensor for name, tensor in plain.items() if not name.endswith("_mask")})
    memory_format = getattr(torch, f"{layout}_format" if layout == "contiguous" else layout)
    net = net.to(memory_format=memory_format).train()
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    pictures: Any = _Pictures(folder / "pictures" / "train", size)
    how: Any = {"num_workers": _WORKERS, "persistent_workers": True, "multiprocessing_context": "spawn"}
    loader = torch.utils.data.DataLoader(pictures, batch, shuffle=True, drop_last=True, **how)
    while True:
        for images, labels in loader:
            optimizer.zero_grad()
            logits = net(images.contiguous(memory_format=memory_format))
            loss = torch.nn.functional.cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            yield loss.item()


class _Pictures:
    """A data set for PyTorch's loader: the shorter side resized, a central crop, a random shift and flip, as ours."""

    def __init__(self, folder: Path, size: int) -> None:
        self.files, self.size = sorted(folder.glob("*/*")), size
        self.names = sorted({file.parent.name for file in self.files})

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        from PIL import Image

        size, pad, rng = self.size, self.size // 8, np.random.default_rng()
        image = Image.open(self.files[index]).convert("RGB")
        scale = size / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        top, left = (image.height - size) // 2, (image.width - size) // 2
        pixels = np.asarray(image, np.float32)[top : top + size, left : left + size] / np.float32(255)
        row, column = rng.integers(0, 2 * pad + 1, 2)
        pixels = np.pad(pixels, ((pad, pad), (pad, pad), (0, 0)))[row : row + size, column : column + size]
        pixels = pixels[:, ::-1] if rng.random() < 0.5 else pixels
        pixels = (pixels - _MEAN) / _STD
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)), self.names.index(self.files[index].parent.name)


def _network(torch: Any) -> Any:
    torch.manual_seed(0)
    net = resnet_torch.network(small_stem=False)
    net.fc = torch.nn.Linear(net.fc.in_features, _CLASSES)
    return net


if __name__ == "__main__":
    main()
