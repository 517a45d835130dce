"""Write a model as a program for other processes, and read it there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from sparsejax._checks import fail, message
from sparsejax._files import PathLike, existing_file, unreadable, write_atomically
from sparsejax.kernels import export_checks


def export(model: nnx.Module, sample_input: Any, path: PathLike, *, any_batch: bool = True) -> None:
    """Write the forward pass of a model, weights included, as a ``jax.export`` file.

    Args:
      model: an NNX module, dense or sparse, in the mode in which it is to run (``model.eval()``). It is not changed.
      sample_input: an input of the model, or a tuple of positional inputs; only shapes and dtypes matter.
      path: the file.
      any_batch: the program takes every batch size: the first axis of the first input, and of all inputs whose first
        axis has that size, is symbolic. False: it takes the shapes of ``sample_input`` and no others, which a model
        needs whose computation depends on the batch size.

    Raises:
      ValueError: an input without a shape, or without an axis for the batch; a model that ``sample_input`` does not
        fit, or that cannot be traced for every batch size.

    >>> import tempfile
    >>> model, path = nnx.Linear(2, 3, rngs=nnx.Rngs(0)), tempfile.mkdtemp() + "/model.bin"
    >>> export(model, jax.numpy.ones((4, 2)), path)
    >>> load_exported(path)(jax.numpy.ones((7, 2))).shape
    (7, 3)
    """
    inputs = _shapes(sample_input)
    graph, state = nnx.split(model)

    def forward(*args: Any) -> Any:
        return nnx.merge(graph, state, copy=True)(*args)

    export_as = jax.export.export(jax.jit(forward), platforms=["cpu"], disabled_checks=export_checks())
    if any_batch:
        (batch,) = jax.export.symbolic_shape("batch")
        program = _for_any_batch(export_as, _with_batch(inputs, batch))
    else:
        program = export_as(*inputs)
    write_atomically(Path(path), bytes(program.serialize()))


def _for_any_batch(export_as: Callable[..., Any], inputs: tuple[Any, ...]) -> Any:
    try:
        return export_as(*inputs)
    except Exception as error:  # a forward pass can fail in any way
        lines = str(error).strip().splitlines() or ["no message"]
        got = f"a forward pass that cannot be traced for every batch size ({type(error).__name__}: {lines[0][:200]})"
        text = message("export", "model", got, "one that can", "any_batch=False takes the shapes of sample_input.")
        raise ValueError(text) from error


def _shapes(sample_input: Any) -> tuple[Any, ...]:
    """Shapes and dtypes of the positional inputs."""
    inputs = sample_input if isinstance(sample_input, tuple) else (sample_input,)
    for value in jax.tree.leaves(inputs):
        if not hasattr(value, "shape"):
            fail("export", "sample_input", f"type {type(value).__name__}", "arrays")
    return jax.tree.map(lambda value: jax.ShapeDtypeStruct(value.shape, value.dtype), inputs)


def _with_batch(inputs: tuple[Any, ...], batch: Any) -> tuple[Any, ...]:
    """The shapes with ``batch`` in place of the batch size, which is the first axis of the first input."""
    leaves = jax.tree.leaves(inputs)
    if not leaves or not leaves[0].shape:
        fail("export", "sample_input", "no axis in its first array", "a batch on its first axis")
    size = leaves[0].shape[0]

    def symbolic(leaf: Any) -> Any:
        shape = (batch, *leaf.shape[1:]) if leaf.shape[:1] == (size,) else leaf.shape
        return jax.ShapeDtypeStruct(shape, leaf.dtype)

    return jax.tree.map(symbolic, inputs)


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
