"""Every parser of files with a valid example and its mutations, and what may happen when it reads a mutated one."""

from __future__ import annotations

import contextlib
import functools
import gzip
import re
import resource
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from PIL import Image

from helpers import dataset_layouts
from helpers import file_mutations as mutations
from helpers.celeba_folder import make_celeba
from sparsejax._npz import read_npz
from sparsejax.data import (
    LazyImageSplit,
    Preprocessing,
    downstream_task,
    idx_dataset,
    image_folder,
    read_celeba_attributes,
)
from sparsejax.models import MLP, load_torch_state_dict

MEMORY = 64 << 20
# <function>: <operand> has <property>; expected <rule>. <hint>
_FORM = re.compile(r"[A-Za-z_.]+: .+ has .+; expected .+[.?]")
_SMALL = Preprocessing(resize=8, size=8)

Mutate = Callable[[bytes, Sequence[mutations.Change]], bytes]


@dataclass(frozen=True)
class Parser:
    """One parser.

    Attributes:
      write: writes a valid folder.
      parse: reads it.
      files: glob pattern of the files that are mutated.
      mutate: how.
    """

    write: Callable[[Path], Any]
    parse: Callable[[Path], Any]
    files: str
    mutate: Mutate


def _write_idx(root: Path, pack: Callable[[bytes], bytes]) -> None:
    images, labels = np.arange(60, dtype=np.uint8), np.arange(5, dtype=np.uint8) % 3
    head = bytes([0, 0, 8, 3, 0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 0, 4])
    (root / "t10k-images-idx3-ubyte").write_bytes(pack(head + images.tobytes()))
    (root / "t10k-labels-idx1-ubyte").write_bytes(pack(bytes([0, 0, 8, 1, 0, 0, 0, 5]) + labels.tobytes()))


def _state() -> dict[str, np.ndarray]:
    return {"fc.weight": np.array([[1.0, 2.0, 0.0], [4.0, 5.0, 6.0]], np.float32), "fc.bias": np.ones(2, np.float32)}


def _write_torch(root: Path, **options: Any) -> None:
    import torch

    tensors = {name: torch.from_numpy(array) for name, array in _state().items()}
    torch.save({"epoch": 3, "state_dict": tensors, "model_config": {"arch": "mlp"}}, root / "model.pt", **options)


def _write_sparse_torch(root: Path) -> None:
    import torch

    tensors = {name: torch.from_numpy(array) for name, array in _state().items()}
    torch.save(tensors | {"fc.weight": tensors["fc.weight"].to_sparse()}, root / "model.pt")


def _write_safetensors(root: Path) -> None:
    from safetensors.numpy import save_file

    save_file(_state(), root / "model.safetensors")


@functools.cache
def _model() -> MLP:
    return MLP(3, 2, hidden=(), rngs=nnx.Rngs(0))


def _load(root: Path) -> None:
    load_torch_state_dict(_model(), next(root.iterdir()))


def _write_npz(root: Path) -> None:
    np.savez(root / "plain.npz", logits=np.zeros((4, 2), np.float32), names=np.array(["a", "bc"]))
    np.savez_compressed(root / "packed.npz", logits=np.zeros((40, 2)), mask=np.ones(40, bool))


def _read_npz(root: Path) -> None:
    for path in root.iterdir():
        read_npz("bias", path)


def _write_image(root: Path, form: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "image.png", form)


def _read_images(root: Path) -> None:
    split = LazyImageSplit([root / "image.png"], np.zeros(1, np.int32), _SMALL)
    split.images([0])
    split.images([0], seed=1)


def _write_folder(root: Path) -> None:
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            dataset_layouts.picture(root / split / label / "1.png", 50)


def _read_folder(root: Path) -> None:
    task = image_folder(root, _SMALL)
    task.train.images(np.arange(len(task.train)))
    task.test.images(np.arange(len(task.test)))


def _layout(name: str, files: str, mutate: Mutate = mutations.change_text) -> Parser:
    write = next(make for make in dataset_layouts.MAKERS if make.__name__ == name)
    return Parser(write, lambda root: downstream_task(name, root, allow_missing_classes=True), files, mutate)


def _image(form: str, mutate: Mutate = mutations.change_bytes) -> Parser:
    return Parser(lambda root: _write_image(root, form), _read_images, "image.png", mutate)


PARSERS: dict[str, Parser] = {
    "idx": Parser(lambda root: _write_idx(root, bytes), idx_dataset, "*-ubyte", mutations.change_bytes),
    "idx_gzip": Parser(
        lambda root: _write_idx(root, gzip.compress),
        idx_dataset,
        "*-ubyte",
        mutations.inside_gzip(mutations.change_bytes),
    ),
    "npz": Parser(_write_npz, _read_npz, "*.npz", mutations.inside_zip),
    "torch": Parser(_write_torch, _load, "model.pt", mutations.inside_zip),
    "torch_sparse": Parser(_write_sparse_torch, _load, "model.pt", mutations.inside_zip),
    "torch_legacy": Parser(
        lambda root: _write_torch(root, _use_new_zipfile_serialization=False), _load, "model.pt", mutations.change_bytes
    ),
    "safetensors": Parser(_write_safetensors, _load, "model.safetensors", mutations.inside_safetensors),
    "celeba": Parser(make_celeba, read_celeba_attributes, "celeba/*.txt", mutations.change_text),
    "aircraft": _layout("aircraft", "data/*.txt"),
    "birds": _layout("birds", "*.txt"),
    "cars": _layout("cars", "**/*.mat", mutations.inside_mat),
    "cifar10": _layout("cifar10", "cifar-10-batches-py/*", mutations.change_bytes),
    "cifar100": _layout("cifar100", "*.bin", mutations.change_bytes),
    "dtd": _layout("dtd", "labels/*.txt"),
    "flowers": _layout("flowers", "*.mat", mutations.change_bytes),
    "food101": _layout("food101", "meta/*.txt"),
    "pets": _layout("pets", "annotations/*.txt"),
    "sun397": _layout("sun397", "*.txt"),
    "image_folder": Parser(_write_folder, _read_folder, "*/*/*.png", mutations.inside_png),
    "png": _image("PNG", mutations.inside_png),
    "jpeg": _image("JPEG"),
    "gif": _image("GIF"),
    "bmp": _image("BMP"),
    "tiff": _image("TIFF"),
    "webp": _image("WEBP"),
    "ppm": _image("PPM"),
}


class Case:
    """A parser with its valid folder written."""

    def __init__(self, name: str, root: Path):
        self.parser, self.root = PARSERS[name], root
        root.mkdir(parents=True)
        self.parser.write(root)
        self.files = sorted(path for path in root.glob(self.parser.files) if path.is_file())
        self.contents = [path.read_bytes() for path in self.files]
        self.size = sum(map(len, self.contents))
        self.parser.parse(root)  # the valid folder is read, and what is loaded once is loaded

    def run(self, which: int, edits: Sequence[mutations.Change]) -> bool:
        """Read the folder with one file mutated; return whether it was refused. Any other outcome is a failure."""
        path, content = self.files[which % len(self.files)], self.contents[which % len(self.files)]
        mutated = self.parser.mutate(content, edits)
        path.write_bytes(mutated)
        try:
            with bounded_memory(MEMORY + self.size + len(mutated)):
                self.parser.parse(self.root)
            return False
        except (ValueError, FileNotFoundError) as error:
            text = str(error)
            assert _FORM.fullmatch(text), f"message of another form: {text!r}"
            assert str(self.root) in text, f"no path in {text!r}"
            assert len(text) < 2000 and "\n" not in text, f"more than a line: {text!r}"
            return True
        finally:
            path.write_bytes(content)


@contextlib.contextmanager
def bounded_memory(most: int) -> Iterator[None]:
    """Fail if more memory is in use at any time: as Python and NumPy count it, or as the system does."""
    tracemalloc.start()
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak starts anew
        before = _status("VmRSS")
        yield
    finally:
        traced = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        resident = _status("VmHWM") - before
        assert max(traced, resident) <= most, f"{traced} bytes allocated and {resident} resident, more than {most}"


@contextlib.contextmanager
def limited_address_space(spare: int) -> Iterator[None]:
    """Let allocations fail beyond so many bytes more than now, so that a mistake does not take the machine's memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _status(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) << 10
