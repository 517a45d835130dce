"""``sparsejax transfer``: adapt trained backbones to data sets, from the command line."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparsejax._checks import fail
from sparsejax._folder_lock import folder_lock
from sparsejax.analysis._parallel import add_backend_options

_FUNCTION = "transfer"
_SECONDS_BETWEEN_LINES = 10.0
_USER_ERRORS = (ValueError, OSError, ImportError)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    from sparsejax import models
    from sparsejax.data._load import SPECS
    from sparsejax.train._saved_forms import FORMS

    text = (
        "a network: the folder of a `sparsejax train` run, or a PyTorch file (then --model); repeat for several. METHOD"
    )
    text += ":SPARSITY names it in tables, such as 'AC/DC:0.9'; one without zeros is 'Dense', the baseline"
    again: Any = {"action": "append", "required": True, "default": argparse.SUPPRESS}
    parser.add_argument("--backbone", metavar="[METHOD:SPARSITY=]CKPT", help=text, **again)
    text = f"a data set, repeat for several: {SPECS}"
    parser.add_argument("--data", metavar="SPEC", help=text, **again)
    parser.add_argument("--regime", choices=("linear", "full", "both"), default="linear", help="what is trained")
    parser.add_argument("--out", type=Path, required=True, default=argparse.SUPPRESS, help="folder of the results")
    parser.add_argument("--seeds", type=int, default=3, help="downstream runs of each cell, seeds 0, 1, ...")
    parser.add_argument("--epochs", type=int, default=150, help="passes over the data; the rate falls in proportion")
    parser.add_argument("--lr", type=float, default=None, help="learning rate; the study's by default")
    parser.add_argument("--batch-size", type=int, default=64, help="examples per step")
    parser.add_argument("--solver", choices=("sgd", "lbfgs"), default="sgd", help="of the linear classifier")
    parser.add_argument("--standardize", action="store_true", help="features, before the linear classifier")
    parser.add_argument("--recalibrate", action="store_true", help="batch statistics on the new data, then frozen")
    parser.add_argument("--kernels", choices=("sparse", "dense"), default="sparse", help="of full fine-tuning")
    text = "keep the networks of full fine-tuning in OUT/networks in this form; repeat for several"
    parser.add_argument("--save", action="append", choices=FORMS, default=[], help=text)
    text = "time the networks at batch 1 and 64, and draw accuracy against it: inference.csv, pareto.svg"
    parser.add_argument("--inference", action="store_true", help=text)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    add_backend_options(parser)
    parser.add_argument("--model", choices=models.MODEL_NAMES, default=None, help="network of a PyTorch file")
    parser.add_argument("--upstream-classes", type=int, help=argparse.SUPPRESS)  # of 0.1.0; the file has them
    parser.add_argument("--resize", type=int, default=256, help="pixels of the shorter side, for image files")
    parser.add_argument("--size", type=int, default=224, help="pixels of the crop, for image files")
    parser.add_argument("--interpolation", choices=("bilinear", "bicubic"), default="bilinear", help="when resizing")


def run(arguments: argparse.Namespace, refuse: Callable[[BaseException], int]) -> int:
    """Run the command; ``refuse`` reports an error of the user."""
    try:
        with folder_lock(arguments.out, _FUNCTION):
            results, text = _run(arguments)
    except _USER_ERRORS as error:
        return refuse(error)
    if arguments.json:
        print(results.to_json(orient="records"))
    else:
        print(text)
        print(f"runs in {arguments.out / 'results.csv'}")
    return 0


def _run(arguments: argparse.Namespace) -> tuple[Any, str]:
    from sparsejax._extras import require
    from sparsejax.analysis._frames import write_csv
    from sparsejax.analysis.transfer.runs._study import run_transfer
    from sparsejax.analysis.transfer.tables._report import report

    pd = require("pandas", _FUNCTION)
    if arguments.seeds < 1:
        fail(_FUNCTION, "--seeds", f"value {arguments.seeds}", "at least 1")
    if arguments.save and arguments.regime == "linear":
        fail(_FUNCTION, "--save", "regime 'linear', which trains no network", "--regime full or both")
    backbones = [_backbone(word, arguments) for word in arguments.backbone]
    regimes = ("linear", "full") if arguments.regime == "both" else (arguments.regime,)
    settings, parts = _settings(arguments), []
    for regime in regimes:
        tasks = [_task(spec, regime, arguments) for spec in arguments.data]
        _say(arguments, f"{regime}: {len(backbones)} networks x {len(tasks)} data sets x {arguments.seeds} seeds")
        parts.append(
            run_transfer(
                backbones,
                tasks,
                arguments.out,
                regimes=(regime,),
                seeds=range(arguments.seeds),
                settings=settings,
                n_jobs=arguments.jobs,
                backend=arguments.backend,
                address=arguments.address,
                progress=None if arguments.json else _Lines(),
            )
        )
    results = pd.concat(parts, ignore_index=True)
    write_csv(results, arguments.out / "results.csv")
    if arguments.inference:
        from sparsejax.analysis.transfer._inference_report import write_inference

        write_inference(backbones, _task(arguments.data[0], regimes[0], arguments), results, arguments.out)
    if len(backbones) > 1 and any(backbone.method == "Dense" for backbone in backbones):
        page = report(results, min_error=1e-3)
        page.save(arguments.out / "report")
        return results, str(page)
    keys = ["regime", "method", "sparsity", "dataset"]
    table = results.groupby(keys, sort=False)["value"].agg(["count", "mean", "std"]).round(4)
    return results, table.to_string()


def _settings(arguments: argparse.Namespace) -> Any:
    from sparsejax.analysis.transfer.runs._config import SGDConfig
    from sparsejax.analysis.transfer.runs._study import StudySettings

    changes = {"epochs": arguments.epochs, "batch_size": arguments.batch_size}
    if arguments.lr is not None:
        changes["learning_rate"] = arguments.lr
    mode = {"batch_norm": "recalibrated"} if arguments.recalibrate else {}
    return StudySettings(
        linear=SGDConfig.linear(**changes, **mode),
        full=tuple(sorted({**changes, **mode}.items())),
        solver=arguments.solver,
        standardize=arguments.standardize,
        kernels=arguments.kernels,
        save=tuple(arguments.save),
    )


def _task(spec: str, regime: str, arguments: argparse.Namespace) -> Any:
    """Load a data set as the study does: statistics of ImageNet if the network is frozen, else of the data set."""
    from sparsejax.data import DOWNSTREAM_DATASETS, Preprocessing, load_task

    shape = {"resize": arguments.resize, "size": arguments.size, "interpolation": arguments.interpolation}
    known = DOWNSTREAM_DATASETS.get(spec.partition(":")[0])
    if regime == "full" and known is not None:
        shape |= {"mean": known.mean, "std": known.std}
    return load_task(spec, Preprocessing(**shape))


def _backbone(word: str, arguments: argparse.Namespace) -> Any:
    from sparsejax import models, train
    from sparsejax.analysis.transfer.runs._study import Backbone

    name, separator, text = word.rpartition("=")
    path = Path(text)
    try:
        arch, model, masks = _network(path, arguments)
    except Exception as error:  # readers of damaged files raise anything: struct.error, KeyError, UnpicklingError, ...
        if isinstance(error, ImportError) or (isinstance(error, _USER_ERRORS) and str(path) in str(error)):
            raise
        got = f"no readable network ({type(error).__name__}: {error})"
        fail(_FUNCTION, f"backbone {text!r}", got, "the folder of a run, or a PyTorch file")
    measured = train.fix_masks(model, masks, kernels="dense", keep_dense=(models.find_head(model),)).sparsity()
    if not separator:
        return Backbone(model, "Dense" if measured == 0 else "Sparse", round(measured, 4), arch, masks, source=text)
    method, colon, level = name.rpartition(":")
    if not colon or not _is_fraction(level):
        fail(_FUNCTION, "--backbone", f"name {name!r}", "METHOD:SPARSITY with a fraction in [0, 1), such as AC/DC:0.9")
    return Backbone(model, method, float(level), arch, masks, source=text)


def _network(path: Path, arguments: argparse.Namespace) -> tuple[str, Any, Any]:
    """Return architecture, model and masks of the folder of a run, or of a PyTorch file."""
    from sparsejax import train

    if not path.is_dir() and arguments.model is None:
        fail(_FUNCTION, f"backbone {str(path)!r}", "no run folder", "one, or --model with a PyTorch file")
    network = train.load_network(path, arguments.model, image_shape=(arguments.size, arguments.size, 3))
    return network.name, network.model, network.masks


def _is_fraction(text: str) -> bool:
    try:
        return 0 <= float(text) < 1
    except ValueError:
        return False


def _say(arguments: argparse.Namespace, text: str) -> None:
    if not arguments.json:
        print(text, file=sys.stderr, flush=True)


class _Lines:
    """Progress as lines on standard error, at most one in ten seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = now
            print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)
