"""The processes that train together: what they exchange, and what must be the same in all of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Generator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sparsejax._checks import fail, message

AXIS = "data"
# Bytes of the smallest exchange: texts are padded to powers of two, so that few programs are compiled.
_SMALLEST = 1024


class Group:
    """The processes of a run; alone, one of one.

    Attributes:
      index, count: number of this process, and of all.
      mesh: all devices, with one axis; None alone.
      has_lost: whether another process turned out to be gone.
    """

    def __init__(self, index: int = 0, count: int = 1, mesh: Mesh | None = None) -> None:
        """Name the place of this process; `sparsejax.train.processes._join.join` makes a group of several."""
        self.index, self.count, self.mesh, self.has_lost = index, count, mesh, False

    @property
    def writes(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.index == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is no other process."""
        return self.count == 1

    @contextlib.contextmanager
    def watching(self) -> Generator[None]:
        """Inside the block, report that another process is gone in one line.

        Raises:
          ConnectionError: it is.
        """
        try:
            yield
        except (ValueError, RuntimeError) as error:
            if "Gloo" not in str(error):
                raise
            self.has_lost = True
            hint = "Start all of them again: the run goes on from its last checkpoint."
            got = f"fewer than {self.count} members"
            raise ConnectionError(message("train", "the group of processes", got, "all of them", hint)) from error

    def exchange(self, text: str) -> list[str]:
        """Give a text, and return those of all processes in their order. All processes call this in the same order."""
        if self.is_alone:
            return [text]
        data = np.frombuffer(text.encode(), np.uint8)
        with self.watching():
            lengths = _gathered(np.array([len(data)], np.int32))[:, 0]
            size = max(_SMALLEST, 1 << int(lengths.max()).bit_length())
            rows = _gathered(np.pad(data, (0, size - len(data))))
        return [row[:length].tobytes().decode() for row, length in zip(rows, lengths, strict=True)]

    def of_first(self, make: Callable[[], Any]) -> Any:
        """Return what ``make`` returns in process 0, as JSON has it."""
        return json.loads(self.exchange(json.dumps(make()) if self.writes else "")[0])

    def same(self, what: str, parts: Mapping[str, Any]) -> None:
        """Refuse to go on where the processes differ.

        Args:
          what: for the message, such as "argument".
          parts: values by name, as JSON has them.

        Raises:
          ValueError: a value differs; the message has its name.
        """
        others = [json.loads(text) for text in self.exchange(json.dumps(dict(parts)))]
        for i, other in enumerate(others):
            for name in sorted(others[0].keys() | other.keys()):
                if other.get(name) != others[0].get(name):
                    got = f"{other.get(name)!r} in process {i}"
                    fail("train", f"{what} {name}", got, f"{others[0].get(name)!r}, as in process 0")

    def same_masks(self, step: int, masks: Mapping[str, np.ndarray] | None) -> None:
        """Refuse to go on where the masks of the processes differ, by their SHA-256.

        Raises:
          RuntimeError: they differ; the message has the step and the first layer.
        """
        if self.is_alone:
            return
        mine = {path: hashlib.sha256(np.packbits(mask).tobytes()).hexdigest() for path, mask in (masks or {}).items()}
        try:
            self.same("mask of layer", mine)
        except ValueError as error:
            raise RuntimeError(f"{error} It was chosen in step {step}: are the processors alike?") from error

    def sum(self, *counts: int) -> list[int]:
        """Return the sums of integers over the processes."""
        processes = [json.loads(text) for text in self.exchange(json.dumps(counts))]
        return [sum(each) for each in zip(*processes, strict=True)]

    def broadcast(self, arrays: Mapping[str, np.ndarray] | None) -> dict[str, np.ndarray]:
        """Return the arrays of process 0; the others pass None."""
        heads = self.of_first(lambda: [[name, x.dtype.name, x.shape] for name, x in (arrays or {}).items()])
        parts = [np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in (arrays or {}).values()]
        sizes = [int(np.prod(shape, dtype=np.int64)) * jax.numpy.dtype(dtype).itemsize for _, dtype, shape in heads]
        data = np.concatenate([np.zeros(0, np.uint8), *parts]) if self.writes else np.zeros(sum(sizes), np.uint8)
        if not self.is_alone:
            from jax.experimental import multihost_utils

            with self.watching():
                data = np.asarray(multihost_utils.broadcast_one_to_all(data), np.uint8)
        ends = np.cumsum([0, *sizes])
        return {
            name: data[start:end].copy().view(jax.numpy.dtype(dtype)).reshape(shape)
            for (name, dtype, shape), start, end in zip(heads, ends[:-1], ends[1:], strict=True)
        }

    def leave(self) -> None:
        """Wait for the others, and disconnect."""
        if not self.is_alone:
            self.exchange("")
            jax.distributed.shutdown()

    def replicated(self, array: jax.Array) -> jax.Array:
        """Return a global array of an array that every process has."""
        assert self.mesh is not None
        whole = NamedSharding(self.mesh, PartitionSpec())
        copies = [jax.device_put(array, device) for device in self.mesh.local_devices]
        return jax.make_array_from_single_device_arrays(array.shape, whole, copies)

    def rows(self, array: Any) -> jax.Array:
        """Return a global array of the rows of all processes; each passes its own."""
        assert self.mesh is not None
        return jax.make_array_from_process_local_data(NamedSharding(self.mesh, PartitionSpec(AXIS)), np.asarray(array))


ALONE = Group()


def _gathered(array: np.ndarray) -> np.ndarray:
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array))
