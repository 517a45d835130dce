"""Kills commands at random moments and compares what the resumed ones leave with an uninterrupted run.

    python tests/helpers/kill_campaign.py --kills 1000 --data ../shared/data

Every second kill of a training run waits until a checkpoint is being written. A round is: up to six kills of one
command in one folder, then a start that is left alone, then a comparison of every array, log and table, bit for bit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from helpers.small_run import checkpoint_arrays
from sparsejax.train.checkpoints._checkpoint import Checkpoints
from sparsejax.train.log._metrics import read_metrics

_PATIENCE = 3600
_PRELOADED = ["sparsejax.cli", "sparsejax.train._cli", "sparsejax.analysis.transfer", "matplotlib.figure", "sklearn"]


@dataclass
class Tally:
    """What the campaign did."""

    kills: int = 0
    in_checkpoint: int = 0
    resumes: int = 0
    rounds: int = 0
    differing: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"{self.kills} kills, {self.in_checkpoint} of them inside a checkpoint write; "
        text += f"{self.resumes} resumes from earlier work; {self.rounds} runs compared; "
        text += f"differing: {len(self.differing)}"
        return "\n".join([text, *self.differing])


@dataclass(frozen=True)
class Target:
    """A command that is killed.

    Attributes:
      name: for the report.
      words: of the command line, without ``--out``.
      content: what must be the same, from the folder.
      work: whether a folder has finished work that a resumed run goes on from.
    """

    name: str
    words: list[str]
    content: Callable[[Path], dict[str, Any]]
    work: Callable[[Path], bool]


def _trained(out: Path) -> dict[str, Any]:
    """Rows of the log without their times, and the arrays of the last checkpoint."""
    last = max((out / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    configuration = json.loads((last / "digests.json").read_text())["configuration"]
    arrays = checkpoint_arrays(Checkpoints(last.parent, configuration), int(last.name))
    rows = [str(row[:-2]) for row in read_metrics(out / "metrics.csv")]
    return {"metrics": rows} | {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in arrays.items()}


def _training(name: str, words: list[str]) -> Target:
    words = [*words, "--batch-size", "128", "--epochs", "4", "--checkpoint-every", "1", "--json"]
    return Target(name, words, _trained, lambda out: any((out / "checkpoints").glob("[0-9]*")))


def training(method: str, *more: str) -> Target:
    words = ["train", "--method", method, "--model", "mlp", "--update-every", "4", *more]
    return _training(" ".join([method, *more]), words)


def study(name: str, words: list[str]) -> Target:
    def content(out: Path) -> dict[str, Any]:
        return {"results.csv": (out / "results.csv").read_bytes()}

    return Target(name, words, content, lambda out: any(out.glob("*.json")))


def targets(data: Path | None, backbone: Path) -> list[Target]:
    """Everything that can be resumed; studies of sources only where the tables are."""
    chosen = [training(method) for method in ("magnitude", "acdc", "rigl", "set", "static", "dense")]
    chosen.append(training("static", "--against-dense"))
    chosen.append(_training("finetune", ["finetune", "--from", str(backbone), "--data", "digits", "--no-measure"]))
    words = ["transfer", "--backbone", str(backbone), "--data", "digits", "--regime", "both", "--epochs", "1"]
    chosen.append(study("transfer", [*words, "--seeds", "3", "--json"]))
    if data is not None:
        words = ["multisource", "run", "--data", "germancredit", "--path", str(data / "flea"), "--seeds", "6"]
        chosen.append(study("multisource", [*words, "--learner", "none", "--method", "naive", "oracle", "--json"]))
    return chosen


def _command(words: list[str]) -> None:
    """In a process of its own: run a command in silence."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    from sparsejax.cli import main

    sys.exit(main(words))


@contextlib.contextmanager
def _started(context: Any, words: list[str]) -> Iterator[Any]:
    process = context.Process(target=_command, args=(words,))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def _run(context: Any, words: list[str]) -> float:
    begin = time.monotonic()
    with _started(context, words) as process:
        process.join(_PATIENCE)
        if process.exitcode != 0:
            raise RuntimeError(f"{' '.join(words)}: exit status {process.exitcode}")
    return time.monotonic() - begin


def _kill(context: Any, words: list[str], out: Path, wait: float, tally: Tally, in_checkpoint: bool) -> bool:
    """Start a command and kill it after a time, or while a checkpoint is being written; False if it ended before."""
    with _started(context, words) as process:
        deadline = time.monotonic() + wait
        drafts: list[Path] = []
        while process.is_alive() and time.monotonic() < deadline:
            drafts = list((out / "checkpoints").glob(".*.partial")) if in_checkpoint else []
            if drafts and time.monotonic() > deadline - 0.7 * wait:
                break
            time.sleep(0.0002 if in_checkpoint else 0.005)
        process.kill()
        process.join()
        was_killed = process.exitcode is not None and process.exitcode < 0
    tally.kills += was_killed
    tally.in_checkpoint += was_killed and any((out / "checkpoints").glob(".*.partial"))
    return was_killed


def campaign(kills: int, data: Path | None, only: list[str], seed: int, report: Callable[[str], None]) -> Tally:
    """Kill until so many kills are done.

    Args:
      kills: in all.
      data: folder with the tables of multisource; None leaves that command out.
      only: words, one of which is in the name of every command that is killed; all commands if empty.
      seed: of moments.
      report: takes a line after every round.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)  # imports are done once; no backend is started before the fork
    rng, tally = random.Random(seed), Tally()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        backbone = base / "backbone"
        _run(context, [*training("static").words, "--out", str(backbone)])
        chosen = [t for t in targets(data, backbone) if not only or any(word in t.name for word in only)]
        references: dict[str, tuple[dict[str, Any], float]] = {}
        while tally.kills < kills:
            target = chosen[tally.rounds % len(chosen)]
            if target.name not in references:
                whole = base / f"whole {target.name}"
                took = _run(context, [*target.words, "--out", str(whole)])
                references[target.name] = target.content(whole), took
            expected, took = references[target.name]
            out = base / "killed"
            words = [*target.words, "--out", str(out)]
            for number in range(rng.randint(1, 6)):
                wait = took * rng.uniform(0.1, 1.0)
                if not _kill(context, words, out, wait, tally, in_checkpoint=number % 2 == 0):
                    break
                tally.resumes += target.work(out)
                if tally.kills >= kills:
                    break
            _run(context, words)
            content = target.content(out)
            names = sorted(name for name in content.keys() | expected.keys() if content.get(name) != expected.get(name))
            tally.differing += [f"{target.name}: {name}" for name in names]
            tally.rounds += 1
            shutil.rmtree(out)
            report(f"{target.name}: {tally}")
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="default 1000: some hours")
    parser.add_argument("--data", type=Path, help="folder with flea/, for multisource")
    parser.add_argument("--only", nargs="+", default=[], help="commands whose names have one of these words")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tally = campaign(options.kills, options.data, options.only, options.seed, lambda line: print(line, flush=True))
    print(f"\n{tally}")
    return 1 if tally.differing else 0


if __name__ == "__main__":
    sys.exit(main())
