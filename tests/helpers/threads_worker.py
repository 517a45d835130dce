"""Eight Python threads run jitted training steps and compare every result; run by test_threads.py.

Usage: ``NPROC=2 python threads_worker.py SECONDS``. Prints the number of steps.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sparsejax
from helpers.grid import make_pattern, normal

THREADS = 8
Step = Callable[..., Any]


def make_steps() -> list[tuple[Step, tuple[Any, ...]]]:
    """Steps with several kernels each: small ones that run inline and large ones that fill the pool."""
    wide, _ = make_pattern("random", (256, 256))
    filters, _ = make_pattern("random", (3, 3, 8, 8))

    def matrix_loss(data: Any, x: Any) -> Any:
        hidden = jnp.tanh(sparsejax.spmm(data, wide, x))
        return jnp.mean(jnp.tanh(sparsejax.spmm(data, wide, hidden)) ** 2)

    def conv_loss(data: Any, x: Any) -> Any:
        hidden = jnp.tanh(sparsejax.conv(data, filters, x))
        return jnp.mean(sparsejax.conv(data, filters, hidden, strides=2) ** 2)

    steps = []
    for batch in (3, 64):
        data, x = normal(0, (wide.nse,), "float32"), normal(1, (batch, 256), "float32")
        steps.append((jax.jit(jax.value_and_grad(matrix_loss, (0, 1))), (data, x)))
        data, x = normal(0, (filters.nse,), "float32"), normal(1, (batch, 9, 9, 8), "float32")
        steps.append((jax.jit(jax.value_and_grad(conv_loss, (0, 1))), (data, x)))
    return steps


def bits(tree: Any) -> list[bytes]:
    """The result's bytes."""
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def main(seconds: float) -> None:
    """Run until the time is over; a wrong result ends the process with an error."""
    steps = make_steps()
    expected = [bits(f(*operands)) for f, operands in steps]
    counts, faults = [0] * THREADS, []
    end = time.monotonic() + seconds

    def work(number: int) -> None:
        while time.monotonic() < end and not faults:
            at = (number + counts[number]) % len(steps)
            f, operands = steps[at]
            if bits(f(*operands)) != expected[at]:
                faults.append((number, at))
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise SystemExit(f"wrong results (thread, step): {faults}")
    print("steps", *counts)


if __name__ == "__main__":
    main(float(sys.argv[1]))
