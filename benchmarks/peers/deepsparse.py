"""DeepSparse, forward only: an inference engine that compiles one network for one batch size.

It needs NumPy 1 and JAX needs NumPy 2, so it runs in a process of another interpreter, which an environment variable
names; times are taken in that process, alternately with the others.
"""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from ..cases._case import FORWARD, Case
from ..harness._child import Child
from ._peer import Call, Peer, Variant

PYTHON = "SPARSEJAX_BENCH_DEEPSPARSE_PYTHON"
_WORKER = Path(__file__).parents[1] / "harness" / "_deepsparse_worker.py"


@functools.cache
def _absent() -> str | None:
    python = os.environ.get(PYTHON)
    if not python:
        install = "python3.11 -m venv DIR && DIR/bin/pip install deepsparse==1.8.0"
        return f"it needs NumPy 1 (to install: {install}, and set {PYTHON}=DIR/bin/python)"
    test = [python, "-c", "import deepsparse"]
    done = subprocess.run(test, capture_output=True, text=True, check=False, env=_environment())
    return None if done.returncode == 0 else f"{python}: {done.stderr.strip().splitlines()[-1]}"


def _environment() -> dict[str, str]:
    return {**os.environ, "NM_DISABLE_ANALYTICS": "True"}


def _prepare(case: Case) -> list[Variant]:
    shape = case.shape
    folder = tempfile.TemporaryDirectory(prefix="sparsejax-bench-")
    child = Child([os.environ[PYTHON], str(_WORKER)], _environment())
    linear = shape.kind == "linear"
    kernel = case.kernel if linear else np.moveaxis(case.kernel, (-1, -2), (0, 1))
    np.save(Path(folder.name) / "kernel.npy", np.ascontiguousarray(kernel))
    np.save(Path(folder.name) / "x.npy", np.ascontiguousarray(np.moveaxis(case.x, -1, 1)))
    attributes: dict[str, Any] = {}
    if not linear:
        pads = [pad for _, _, pad in shape.axes]
        attributes = {"strides": [shape.stride] * len(pads), "pads": pads * 2}
    y = list(np.moveaxis(np.empty(shape.y, bool), -1, 1).shape)
    threads = len(os.sched_getaffinity(0))
    operator = "MatMul" if linear else "Conv"
    child.ask("prepare", folder=folder.name, operator=operator, attributes=attributes, y=y, threads=threads)

    def run() -> np.ndarray:
        child.ask("run", folder=folder.name)
        return np.load(Path(folder.name) / "y.npy")

    call = Call(run, lambda y: {"y": np.moveaxis(y, 1, -1)}, sample=child.sampler("sample"))
    weakref.finalize(call, _end, child, folder)
    return [Variant("onnx", {FORWARD: call})]


def _end(child: Child, folder: tempfile.TemporaryDirectory[str]) -> None:
    child.close()
    folder.cleanup()


PEER = Peer("deepsparse", absent=_absent, unsupported=lambda case: None, prepare=_prepare)
