"""``python -m sparsejax_bench.data_loading``: reading pictures from files, against grain's processes and PyTorch.

Throughput: the batches of `sparsejax.train` (threads of grain), the same batches in processes that grain spawns, and
PyTorch's ``DataLoader``, each with as many workers, one after the other in each round; all read the same files by the
same function, in the same order. Memory: of this process while it reads all pictures once with threads. Waiting: share
of the steps of ``finetune`` on these pictures that they wait for data.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from sparsejax import data, models, nn
from sparsejax._cpu_info import cpu_info
from sparsejax.data._batches import epoch_order
from sparsejax.train import TrainConfig, TrainRun
from sparsejax.train._inputs import TaskInputs
from sparsejax.train.log._metrics import read_metrics


class Pictures:
    """Rows of the split, as PyTorch's and grain's loaders take them; it is sent to their processes."""

    def __init__(self, split: Any, order: np.ndarray, size: int) -> None:
        self.split, self.order, self.size = split, order, size

    def __len__(self) -> int:
        return len(self.order) // self.size

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.order[index * self.size : (index + 1) * self.size]
        return self.split.images(rows, seed=(0, 3, index)), self.split.labels[rows]


def as_it_is(batch: Any) -> Any:
    """PyTorch's loader makes tensors of it otherwise."""
    return batch


def make_files(folder: Path, count: int, side: int) -> list[Path]:
    """JPEG files of noise that is smooth, as pictures are."""
    from PIL import Image

    rng, paths = np.random.default_rng(0), []
    for i in range(count):
        small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        paths.append(folder / f"{i:05d}.jpg")
        Image.fromarray(small).resize((side, side)).save(paths[-1], quality=90)
    return paths


def task_of(options: argparse.Namespace, folder: Path) -> data.ImageTask:
    """A task of ``--pictures`` pictures; paths repeat after ``--files``."""
    files = make_files(folder, options.files, options.side)
    paths = [files[i % len(files)] for i in range(options.pictures)]
    labels = np.arange(options.pictures, dtype=np.int32) % 10
    augmentation = data.Augmentation("resized", True)
    reading = data.Preprocessing(options.side, options.side, augmentation=augmentation)
    train = data.LazyImageSplit(paths, labels, reading)
    return data.ImageTask("files", train, data.LazyImageSplit(paths[:500], labels[:500], reading), 10)


def loaders(task: data.ImageTask, options: argparse.Namespace) -> dict[str, Callable[[], Iterator[Any]]]:
    """Ways to read the same batches of an epoch."""
    config = TrainConfig(batch_size=options.batch)
    pictures: Any = Pictures(task.train, epoch_order(0, 0, options.pictures), options.batch)

    def threads(count: int) -> Iterator[Any]:
        return TaskInputs(task, config, threads=count).batches(0, len(pictures))

    def grain_processes() -> Iterator[Any]:
        import grain
        from absl import flags  # of grain's processes, which otherwise wait for absl.app

        flags.FLAGS.mark_as_parsed()
        reading: Any = grain.MapDataset.source(pictures).to_iter_dataset(grain.ReadOptions(num_threads=1))
        return iter(reading.mp_prefetch(grain.MultiprocessingOptions(num_workers=options.workers)))

    def pytorch() -> Iterator[Any]:
        from torch.utils.data import DataLoader

        context: Any = {"multiprocessing_context": "spawn", "prefetch_factor": 2}
        return iter(DataLoader(pictures, batch_size=None, num_workers=options.workers, collate_fn=as_it_is, **context))

    return {
        "no worker": lambda: threads(0),
        "threads": lambda: threads(options.workers),
        "grain's processes": grain_processes,
        "PyTorch": pytorch,
    }


def throughput(task: data.ImageTask, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Pictures per second of each way, without the start of its workers, and that start."""
    ways = loaders(task, options)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    starts: dict[str, list[float]] = {name: [] for name in ways}
    sums: dict[str, float] = {}
    for _ in range(options.rounds):
        for name, way in ways.items():
            begin = time.perf_counter()
            batches = way()
            total = float(np.asarray(next(batches)[0]).sum())
            starts[name].append(time.perf_counter() - begin)
            for _ in range(2 * options.workers):  # what was read ahead while the workers started
                next(batches)
            begin = time.perf_counter()
            for _ in range(options.steps):
                total += float(np.asarray(next(batches)[0]).sum())
            rates[name].append(options.steps * options.batch / (time.perf_counter() - begin))
            sums.setdefault(name, total)
            del batches
    assert len({round(value, 1) for value in sums.values()}) == 1, f"the batches differ: {sums}"
    ours = rates["threads"]
    return [
        {
            "loader": name,
            "pictures_per_s": spread(rates[name]),
            "threads_over_it": spread([a / b for a, b in zip(ours, rates[name], strict=True)]),
            "start_s": statistics.median(starts[name]),
        }
        for name in ways
    ]


def memory(task: data.ImageTask, options: argparse.Namespace) -> list[float]:
    """Resident MiB of this process after each tenth of the pictures."""
    inputs = TaskInputs(task, TrainConfig(batch_size=options.batch), threads=options.workers)
    count = inputs.steps_per_epoch
    marks = {count * (i + 1) // 10 for i in range(10)}
    sizes = []
    for step, _ in enumerate(inputs.batches(0, count), 1):
        if step in marks:
            sizes.append(resident_mib())
    return sizes


def waiting(task: data.ImageTask, options: argparse.Namespace) -> dict[str, Any]:
    """Share of the time of fine-tuning steps that they wait for data, without the first steps, which compile."""
    side = (options.side, options.side)
    model: Any = models.build("resnet18", 10, 3, side, nnx.Rngs(0))
    masks = {
        path: np.abs(kernel) >= np.quantile(np.abs(kernel), 0.95)
        for path, kernel in nn.dense_kernels(model).items()
        if path not in ("conv1", "fc")
    }
    layer: Any
    for path, layer in nnx.iter_modules(model):
        if (name := "/".join(map(str, path))) in masks:
            layer.kernel[...] = layer.kernel[...] * masks[name]
    config = TrainConfig(method="fixed", batch_size=options.batch, epochs=1, learning_rate=0.01)
    with tempfile.TemporaryDirectory() as out:
        run = TrainRun(config, out, dataset=task, model=model, masks=masks, measure=False, checkpoint_every=10**9)
        states = run.states()
        for _ in range(options.waiting + 5):
            next(states)
        states.close()
        rows = read_metrics(run.dir.metrics)[4:]
    shares = [row.data_ms / (row.ms + row.data_ms) for row in rows]
    total = sum(row.ms + row.data_ms for row in rows)
    return {
        "steps": len(rows),
        "share": sum(row.data_ms for row in rows) / total,
        "by_step": spread(shares),
        "step_ms": statistics.median(row.ms for row in rows),
    }


def resident_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--pictures", type=int, default=100_000)
    add("--files", type=int, default=2_000, help="different files among them (default 2000)")
    add("--side", type=int, default=32, help="pixels (default 32)")
    add("--batch", type=int, default=64)
    add("--workers", type=int, default=2, help="threads or processes that read (default 2)")
    add("--rounds", type=int, default=5)
    add("--steps", type=int, default=40, help="batches of a round (default 40)")
    add("--waiting", type=int, default=20, help="fine-tuning steps (default 20); 0 leaves them out")
    add("--json", type=Path, help="also write JSON there")
    options = parser.parse_args()
    machine = {"isa": cpu_info().isa, "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}
    setting = {name: getattr(options, name) for name in ("pictures", "files", "side", "batch", "workers", "rounds")}
    with tempfile.TemporaryDirectory() as folder:
        task = task_of(options, Path(folder))
        found: dict[str, Any] = {"setting": setting, "machine": machine, "throughput": throughput(task, options)}
        found["memory_mib"] = memory(task, options)
        found["waiting"] = waiting(task, options) if options.waiting else None
    for row in found["throughput"]:
        rate, ratio = row["pictures_per_s"], row["threads_over_it"]
        print(
            f"{row['loader']}: {rate['median']:,.0f} pictures/s (quartiles {rate['low']:,.0f} to {rate['high']:,.0f}); "
            f"threads over it {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}); "
            f"first batch after {row['start_s']:.2f} s"
        )
    print("resident MiB after each tenth of the pictures: " + " ".join(f"{size:.0f}" for size in found["memory_mib"]))
    if found["waiting"] is not None:
        wait = found["waiting"]
        print(
            f"fine-tuning: {100 * wait['share']:.1f} % of {wait['steps']} steps waited ({wait['step_ms']:.0f} ms each)"
        )
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
