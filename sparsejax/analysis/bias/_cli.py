"""``sparsejax bias``: an audit from files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax._checks import fail
from sparsejax._files import place_for
from sparsejax._npz import read_npz
from sparsejax.analysis.bias.audit._audit import BiasAudit
from sparsejax.analysis.bias.audit._compare import compare

_FUNCTION = "bias"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""

    def file(flag: str, help: str, *, required: bool = False, **more: Any) -> None:
        default = argparse.SUPPRESS if required else None
        parser.add_argument(flag, type=Path, required=required, default=default, metavar="FILE", help=help, **more)

    file("--dense", ".npz with 'logits' or 'probs' of the dense model: [n, K] or [R, n, K]", required=True)
    parser.add_argument(
        "--sparse",
        action="append",
        required=True,
        default=argparse.SUPPRESS,
        metavar="[SPARSITY=]FILE",
        help="the same of a sparse model; repeat with 0.9=FILE, 0.98=FILE, ... for several",
    )
    file("--labels", ".npz with 'labels' [n, K] and optionally 'names' [K]", required=True)
    file("--groups", ".npz with one array [n] per group attribute")
    file("--train-labels", ".npz with 'labels' of the training split")
    file("--train-groups", ".npz with the group attributes of the training split")
    file("--val-dense", "like --dense, on the validation split; with --val-sparse and --val-labels")
    parser.add_argument("--val-sparse", action="append", metavar="[SPARSITY=]FILE", help="like --sparse, in its order")
    file("--val-labels", "like --labels, on the validation split")
    file("--images", ".npz with 'images' [n, H, W] or [n, H, W, 3] for the gallery")
    file("--clusters", ".npz with 'clusters' [n], samples that are resampled together")
    file("--out", "the report, .html; or a folder, to be served, for a gallery of all pictures", required=True)
    file("--table", "all numbers as a tidy table, .csv or .json")
    parser.add_argument("--threshold", default="default", help="'default', 'calibrated', or a number")
    parser.add_argument("--band", type=float, default=0.4, help="half width of the uncertain band around p = 0.5")
    parser.add_argument("--min-count", type=int, default=10, help="least samples behind a rate")
    parser.add_argument("--bootstrap", type=int, default=0, help="resamples for 95-percent intervals")
    parser.add_argument("--missing", type=float, default=None, help="a value that marks a missing label, such as -1")
    parser.add_argument("--hash-ids", action="store_true", help="hide sample ids in the report")
    parser.add_argument("--seed", type=int, default=0, help="of resamples and gallery")


def run(arguments: argparse.Namespace, refuse: Callable[[BaseException], int]) -> int:
    """Run the command; ``refuse`` reports an error of the user."""
    try:
        place_for(_FUNCTION, arguments.out, "file" if arguments.out.suffix == ".html" else "folder")
        audit = _audit(arguments)
        if arguments.out.suffix == ".html":
            audit.to_html(arguments.out, hash_ids=arguments.hash_ids)
        else:
            audit.to_folder(arguments.out, hash_ids=arguments.hash_ids)
        if arguments.table is not None:
            write = audit.table.to_json if arguments.table.suffix == ".json" else audit.table.to_csv
            write(arguments.table)
    except (ValueError, OSError, ImportError) as error:
        return refuse(error)
    if arguments.json:
        overall = json.loads(audit.overall.to_json())
        print(json.dumps({"out": str(arguments.out), "warnings": audit.warnings, "overall": overall}))
    else:
        print(audit)
        for warning in audit.warnings:
            print(f"note: {warning}")
        print(f"report in {arguments.out}")
    return 0


def _audit(arguments: argparse.Namespace) -> BiasAudit:
    dense, kind = _outputs(arguments.dense)
    sparse = _sparse("--sparse", arguments.sparse, kind)
    labels = read_npz(_FUNCTION, arguments.labels)
    images = None if arguments.images is None else _array(arguments.images, "images")
    clusters = None if arguments.clusters is None else _array(arguments.clusters, "clusters")
    return compare(
        dense,
        sparse,
        _entry(arguments.labels, labels, "labels"),
        None if arguments.groups is None else read_npz(_FUNCTION, arguments.groups),
        kind=kind,
        train_labels=None if arguments.train_labels is None else _array(arguments.train_labels, "labels"),
        train_groups=None if arguments.train_groups is None else read_npz(_FUNCTION, arguments.train_groups),
        val=_validation(arguments, kind),
        attribute_names=[str(name) for name in labels["names"]] if "names" in labels else None,
        images=images,
        threshold=_threshold(arguments.threshold),
        uncertainty_band=arguments.band,
        min_count=arguments.min_count,
        n_boot=arguments.bootstrap,
        clusters=clusters,
        random_state=arguments.seed,
        missing=arguments.missing,
    )


def _threshold(text: str) -> str | float:
    return float(text) if _is_number(text) else text


def _validation(arguments: argparse.Namespace, kind: str) -> dict[str, Any] | None:
    parts = (arguments.val_dense, arguments.val_sparse, arguments.val_labels)
    if all(value is None for value in parts):
        return None
    if any(value is None for value in parts):
        fail(_FUNCTION, "validation split", "parts missing", "all of --val-dense, --val-sparse and --val-labels")
    dense, val_kind = _outputs(arguments.val_dense)
    if val_kind != kind:
        fail(_FUNCTION, f"file {str(arguments.val_dense)!r}", f"{val_kind}", f"{kind}, as --dense")
    sparse = _sparse("--val-sparse", arguments.val_sparse, kind)
    return {"dense": dense, "sparse": sparse, "labels": _array(arguments.val_labels, "labels")}


def _sparse(flag: str, words: Sequence[str], kind: str) -> np.ndarray | dict[float, np.ndarray]:
    """Return one array for one file without a sparsity, else a mapping."""
    if len(words) == 1 and "=" not in words[0]:
        return _of_kind(Path(words[0]), kind)
    by_level = {}
    for word in words:
        level, separator, path = word.partition("=")
        if not separator or not _is_number(level):
            fail(_FUNCTION, flag, f"value {word!r}", "SPARSITY=FILE with a fraction in [0, 1)")
        by_level[float(level)] = _of_kind(Path(path), kind)
    return by_level


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _of_kind(path: Path, kind: str) -> np.ndarray:
    values, kind_of_file = _outputs(path)
    if kind_of_file != kind:
        fail(_FUNCTION, f"file {str(path)!r}", kind_of_file, f"{kind}, as --dense")
    return values


def _outputs(path: Path) -> tuple[np.ndarray, str]:
    arrays = read_npz(_FUNCTION, path)
    kinds = [kind for kind in ("logits", "probs") if kind in arrays]
    if len(kinds) != 1:
        fail(_FUNCTION, f"file {str(path)!r}", f"arrays {sorted(arrays)}", "one of 'logits' and 'probs'")
    return arrays[kinds[0]], kinds[0]


def _array(path: Path, name: str) -> np.ndarray:
    return _entry(path, read_npz(_FUNCTION, path), name)


def _entry(path: Path, arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in arrays:
        fail(_FUNCTION, f"file {str(path)!r}", f"arrays {sorted(arrays)}", f"an array {name!r}")
    return arrays[name]
