"""DeepSparse in a separate interpreter, run as a script: it needs NumPy 1 and imports only ``_child``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import deepsparse  # pyright: ignore[reportMissingImports]
import numpy as np
from _child import seconds, serve
from onnx import TensorProto, helper, numpy_helper, save  # pyright: ignore[reportMissingImports]

# What onnx 1.14, which it comes with, can read.
_OPSET, _IR = 13, 8


class _Engine:
    """One compiled layer and its input."""

    def __init__(self) -> None:
        self.engine: Any = None
        self.x: list[np.ndarray] = []

    def prepare(self, folder: str, operator: str, attributes: dict[str, Any], y: list[int], threads: int) -> None:
        """Compile a layer whose ``kernel.npy`` and ``x.npy`` are in the folder."""
        files = Path(folder)
        kernel, x = np.load(files / "kernel.npy"), np.load(files / "x.npy")
        nodes = [helper.make_node(operator, ["x", "kernel"], ["y"], **attributes)]
        operands = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)]
        results = [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)]
        graph = helper.make_graph(nodes, "layer", operands, results, [numpy_helper.from_array(kernel, "kernel")])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
        model.ir_version = _IR
        save(model, str(files / "layer.onnx"))
        self.x = [x]
        self.engine = deepsparse.Engine(model=str(files / "layer.onnx"), batch_size=x.shape[0], num_cores=threads)

    def _call(self) -> list[np.ndarray]:
        return self.engine.run(self.x, val_inp=False)

    def run(self, folder: str) -> None:
        """Compute once and leave ``y.npy`` in the folder."""
        np.save(Path(folder) / "y.npy", self._call()[0])

    def sample(self, calls: int) -> float:
        """Seconds of so many calls."""
        return seconds(self._call, calls)


if __name__ == "__main__":
    serve(_Engine())
