"""``python -m sparsejax_bench.processes``: what several processes cost and gain, on this machine.

All-reduce: bytes and time of the sum of a gradient over processes, dense and with the stored weights alone. Step: two
processes of one thread each against one process of two threads, the same global batch, alternately. The processes are
those of ``sparsejax train --processes``: pinned, gloo over the loopback interface.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from sparsejax import models, nn
from sparsejax._cpu_info import cpu_info
from sparsejax.train._steps import StepKind, bind_step, step_of_kind
from sparsejax.train.processes._group import ALONE, AXIS, Group
from sparsejax.train.processes._join import join
from sparsejax.train.processes._launch import core_shares, free_port
from sparsejax.train.processes._step import bind_group_step

FORMS = ("sparse", "dense")


class Worker:
    """One process: does what it is told, and says how long it took."""

    def __init__(self, group: Group, options: argparse.Namespace) -> None:
        self.group, self.options = group, options
        self._calls: dict[Any, Callable[[], Any]] = {}

    def seconds(self, task: str, what: Any, calls: int) -> float:
        """Return the seconds of so many calls; the first request for a task compiles it before."""
        key = task, what
        if key not in self._calls:
            self._calls[key] = self._reduction(what) if task == "reduce" else self._step(what)
            self._calls[key]()
        begin = time.perf_counter()
        for _ in range(calls):
            self._calls[key]()
        return time.perf_counter() - begin

    def _reduction(self, size: int) -> Callable[[], Any]:
        """The sum over processes of a vector of so many float32 numbers."""
        if self.group.mesh is None:
            return lambda: None
        add = jax.jit(
            jax.shard_map(
                lambda x: jax.lax.psum(x, AXIS),
                mesh=self.group.mesh,
                in_specs=jax.sharding.PartitionSpec(AXIS),
                out_specs=jax.sharding.PartitionSpec(),
            )
        )
        rows = self.group.rows(np.ones((1, size), np.float32))
        return lambda: jax.block_until_ready(add(rows))

    def _step(self, form: str) -> Callable[[], Any]:
        """A training step of the network, on the rows of this process."""
        model, _ = network(form, self.options)
        optimizer = nnx.Optimizer(model, optax.sgd(0.01, momentum=0.9), wrt=nnx.Param)
        if self.group.is_alone:
            step = bind_step(model, optimizer, step_of_kind(StepKind()))
        else:
            group_options: Any = {"is_stored": False, "sync_batch_norm": False}
            step = bind_group_step(self.group, model, optimizer, StepKind(), **group_options)
        rng, count = np.random.default_rng(self.group.index), self.options.batch // self.group.count
        images = rng.normal(size=(count, self.options.size, self.options.size, 3)).astype(np.float32)
        labels = rng.integers(0, 10, count).astype(np.int32)
        return lambda: jax.block_until_ready(step(images, labels))


def network(form: str, options: argparse.Namespace) -> tuple[Any, int]:
    """A network with random weights, pruned by magnitude or dense; and how many numbers its gradient has."""
    shape = options.size, options.size
    model: Any = models.build(options.model, 10, 3, shape, nnx.Rngs(0))
    if form == "sparse":
        masks = {}
        for path, kernel in nn.dense_kernels(model).items():
            if path not in ("conv1", "fc"):
                masks[path] = np.abs(kernel) >= np.quantile(np.abs(kernel), options.sparsity)
        model, _ = nn.sparsify(model, masks, min_sparsity=0.0, policy="always")
    return model, sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


class Team:
    """Processes that work together, each on its cores."""

    def __init__(self, count: int, words: Sequence[str]) -> None:
        address = f"127.0.0.1:{free_port()}"
        cores, pipe = os.sched_getaffinity(0), subprocess.PIPE
        self._members: list[subprocess.Popen[str]] = []
        for i, share in enumerate(core_shares(count)):
            os.sched_setaffinity(0, share)
            command = [sys.executable, "-m", "sparsejax_bench.processes", *words]
            command += ["--member", str(i), "--count", str(count), "--address", address]
            variables = os.environ | {"NPROC": str(len(share))}
            self._members.append(subprocess.Popen(command, env=variables, stdin=pipe, stdout=pipe, text=True))
        os.sched_setaffinity(0, cores)

    def seconds(self, *request: Any) -> float:
        """Return the seconds that the slowest member took."""
        for member in self._members:
            assert member.stdin is not None
            member.stdin.write(json.dumps(request) + "\n")
            member.stdin.flush()
        answers = [member.stdout.readline() for member in self._members if member.stdout is not None]
        if not all(answers):
            raise SystemExit("a process has ended; its message is above")
        return max(map(float, answers))

    def close(self) -> None:
        """End the processes."""
        for member in self._members:
            assert member.stdin is not None
            member.stdin.close()
        for member in self._members:
            member.wait(30)


def serve(options: argparse.Namespace) -> None:
    """Be a member of a team until its input ends."""
    group = ALONE if options.count == 1 else join(options.address, options.member, options.count, 120.0)
    worker = Worker(group, options)
    for line in sys.stdin:
        print(worker.seconds(*json.loads(line)), flush=True)
    group.leave()


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


def measure(options: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Everything, for JSON."""
    sizes = {form: network(form, options)[1] for form in FORMS}
    probes = {"probe": 1024, "probe of 1 MiB": 1 << 18, **sizes}
    teams = {count: Team(count, words) for count in (1, 2)}
    reductions, rows = [], []
    for name, size in probes.items():
        for count, team in teams.items():
            team.seconds("reduce", size, 1)
            times = [team.seconds("reduce", size, options.calls) / options.calls for _ in range(options.rounds)]
            sent = 4 * size * (count - 1) * 2 // count  # a ring sends 2 (p - 1) / p of the vector
            reductions.append(
                {"gradient": name, "processes": count, "numbers": size, "bytes": sent, "s": spread(times)}
            )
    for form in FORMS:
        taken: dict[int, list[float]] = {1: [], 2: []}
        for team in teams.values():
            team.seconds("step", form, 1)
        for _ in range(options.rounds):
            for count, team in teams.items():
                taken[count].append(team.seconds("step", form, options.steps) / options.steps)
        ratios = [two / one for one, two in zip(taken[1], taken[2], strict=True)]
        rows.append({"form": form, "one": spread(taken[1]), "two": spread(taken[2]), "ratio": spread(ratios)})
    for team in teams.values():
        team.close()
    setting = {name: getattr(options, name) for name in ("model", "size", "batch", "sparsity", "rounds", "steps")}
    machine = {"isa": cpu_info().isa, "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}
    return {"setting": setting, "machine": machine, "all_reduce": reductions, "step": rows}


def text(found: dict[str, Any]) -> str:
    """The tables."""
    lines = [f"{found['setting']}, {found['machine']}", ""]
    for row in found["all_reduce"]:
        time_ms = {name: 1e3 * value for name, value in row["s"].items()}
        lines.append(
            f"all-reduce, {row['gradient']}, {row['processes']} processes: {row['numbers']:,} numbers, "
            f"{row['bytes']:,} bytes sent by each, {time_ms['median']:.3f} ms "
            f"(quartiles {time_ms['low']:.3f} to {time_ms['high']:.3f})"
        )
    for row in found["step"]:
        ratio, one, two = row["ratio"], 1e3 * row["one"]["median"], 1e3 * row["two"]["median"]
        lines.append(
            f"step, {row['form']}: one process {one:.1f} ms, two {two:.1f} ms; two over one {ratio['median']:.3f} "
            f"(quartiles {ratio['low']:.3f} to {ratio['high']:.3f})"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print, or be one of the processes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--model", default="resnet18", choices=models.MODEL_NAMES)
    add("--size", type=int, default=32, help="pixels of a side (default 32)")
    add("--batch", type=int, default=32, help="images of the global batch (default 32)")
    add("--sparsity", type=float, default=0.95, help="of all convolutions but the first (default 0.95)")
    add("--rounds", type=int, default=9, help="rounds of each measurement (default 9)")
    add("--calls", type=int, default=10, help="all-reduces of a round (default 10)")
    add("--steps", type=int, default=2, help="training steps of a round (default 2)")
    add("--json", type=Path, help="also write JSON there")
    for name, kind in (("--member", int), ("--count", int), ("--address", str)):
        add(name, type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.member is not None:
        serve(options)
        return
    words = [f"--{name}={getattr(options, name)}" for name in ("model", "size", "batch", "sparsity")]
    found = measure(options, words)
    print(text(found))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
