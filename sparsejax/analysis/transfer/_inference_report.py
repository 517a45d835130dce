"""Time of inference of the networks of a study, beside their accuracy."""

# pandas declares unions that are too wide for its results.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsejax._extras import require
from sparsejax._files import write_atomically
from sparsejax.analysis._frames import write_csv
from sparsejax.analysis.transfer._plots_cost import plot_pareto
from sparsejax.analysis.transfer.runs._inference import time_inference
from sparsejax.analysis.transfer.runs._study import Backbone
from sparsejax.data import ImageTask
from sparsejax.models import find_head
from sparsejax.train import fix_masks

if TYPE_CHECKING:
    import pandas as pd


def inference_table(backbones: Sequence[Backbone], task: ImageTask, results: pd.DataFrame) -> pd.DataFrame:
    """Time each network at batch 1 and 64, its pruned layers on the sparse kernels, and add its mean accuracy.

    Args:
      backbones: of the study.
      task: whose pictures are used.
      results: of `run_transfer`; accuracy is the mean over regimes, data sets and seeds.

    Returns:
      Data frame: method, sparsity, batch_size, milliseconds, per_second, accuracy.
    """
    pd = require("pandas", "inference_table")
    models: dict[str, Any] = {}
    for number, backbone in enumerate(backbones):
        head = backbone.head or find_head(backbone.model)
        models[str(number)] = fix_masks(backbone.model, backbone.masks, keep_dense=(head,)).model
    accuracy: dict[Any, float] = results.groupby(["arch", "method", "sparsity"])["value"].mean().to_dict()
    rows = []
    for cost in time_inference(models, task.test):
        backbone = backbones[int(cost.name)]
        key = (backbone.arch, backbone.method, backbone.sparsity)
        rows.append((*key, *cost[1:], accuracy[key]))
    columns = ["arch", "method", "sparsity", "batch_size", "milliseconds", "per_second", "accuracy"]
    return pd.DataFrame(rows, columns=columns)


def write_inference(backbones: Sequence[Backbone], task: ImageTask, results: pd.DataFrame, out: Path) -> None:
    """Write `inference_table` as ``inference.csv`` and its plot as ``pareto.svg`` into a folder."""
    table = inference_table(backbones, task, results)
    write_csv(table, out / "inference.csv")
    figure = plot_pareto(table)[0, 0].figure
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    require("matplotlib.pyplot", "write_inference").close(figure)
    write_atomically(out / "pareto.svg", drawn.getvalue())
