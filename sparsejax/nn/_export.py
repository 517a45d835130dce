"""Write a model as a program for other processes, and read it there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from sparsejax._checks import fail
from sparsejax._files import PathLike, existing_file, unreadable, write_atomically
from sparsejax.kernels import export_checks


def export(model: nnx.Module, sample_input: Any, path: PathLike) -> None:
    """Write the forward pass of a model, weights included, as a ``jax.export`` file.

    Args:
      model: an NNX module, dense or sparse, in the mode in which it is to run (``model.eval()``). It is not changed.
      sample_input: an input of the model, or a tuple of positional inputs; only shapes and dtypes matter. The program
        takes these shapes and no others: the batch size is fixed.
      path: the file.

    Raises:
      ValueError: an input without a shape.

    >>> import tempfile
    >>> model, path = nnx.Linear(2, 3, rngs=nnx.Rngs(0)), tempfile.mkdtemp() + "/model.bin"
    >>> export(model, jax.numpy.ones((4, 2)), path)
    >>> load_exported(path)(jax.numpy.ones((4, 2))).shape
    (4, 3)
    """
    inputs = sample_input if isinstance(sample_input, tuple) else (sample_input,)
    for value in jax.tree.leaves(inputs):
        if not hasattr(value, "shape"):
            fail("export", "sample_input", f"type {type(value).__name__}", "arrays")
    graph, state = nnx.split(model)
    shapes = jax.tree.map(lambda value: jax.ShapeDtypeStruct(value.shape, value.dtype), inputs)

    def forward(*args: Any) -> Any:
        return nnx.merge(graph, state, copy=True)(*args)

    program = jax.export.export(jax.jit(forward), platforms=["cpu"], disabled_checks=export_checks())(*shapes)
    write_atomically(Path(path), bytes(program.serialize()))


def load_exported(path: PathLike) -> Callable[..., Any]:
    """Return the forward pass that `export` wrote; the process needs jax and sparsejax, and not the model's classes.

    Args:
      path: the file.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a file of `export`.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/model.bin"
    >>> export(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), jax.numpy.ones((1, 2)), path)
    >>> load_exported(path)(jax.numpy.ones((1, 2))).shape
    (1, 3)
    """
    path = existing_file("load_exported", path)
    try:
        program = jax.export.deserialize(bytearray(path.read_bytes()))
    except Exception as error:  # flatbuffers raises anything for damaged files
        raise unreadable("load_exported", path, error, "a program that sparsejax.export wrote") from error
    return program.call
