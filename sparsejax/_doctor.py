"""The command ``sparsejax doctor``: versions, processor, and whether every kernel is right on this machine."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import sparsejax
from sparsejax._cpu_info import CpuInfo, cpu_info
from sparsejax._self_test import TOLERANCES, SelfTest, self_test
from sparsejax._table import text_table
from sparsejax.kernels._targets import TARGETS

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


@dataclass(frozen=True)
class Diagnosis:
    """The result of ``doctor``.

    Attributes:
      versions: of Python, sparsejax and the packages it stands on.
      cpu: instruction set and threads.
      targets: FFI targets registered with XLA.
      tests: the self-test, one entry per target and dtype.
    """

    versions: dict[str, str]
    cpu: CpuInfo
    targets: tuple[str, ...]
    tests: list[SelfTest]

    @property
    def ok(self) -> bool:
        """Whether every kernel agrees with its reference."""
        return bool(self.tests) and all(test.ok for test in self.tests)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, for JSON; an error that could not be measured is None."""
        tests = [asdict(test) | {"error": test.error if test.error == test.error else None} for test in self.tests]
        return {
            "ok": self.ok,
            "versions": self.versions,
            "cpu": asdict(self.cpu),
            "targets": list(self.targets),
            "tests": tests,
        }

    def __str__(self) -> str:
        """Versions, processor and the table of the self-test."""
        lines = [f"{name:10}{version}" for name, version in self.versions.items()]
        lines.append(f"{'isa':10}{self.cpu.isa} (supported: {', '.join(self.cpu.supported_isas)})")
        lines.append(f"{'threads':10}{self.cpu.threads}")
        lines += [
            "",
            f"{len(self.targets)} FFI targets registered; largest relative error against the reference:",
            "",
        ]
        by_target = {(test.target, test.dtype): test for test in self.tests}
        rows = [(target, *(_cell(by_target[target, dtype]) for dtype in TOLERANCES)) for target in self.targets]
        lines.append(text_table(("kernel", *TOLERANCES), rows))
        lines += [f"\n{test.target}, {test.dtype}: {test.detail}" for test in self.tests if not test.ok]
        lines += ["", "all kernels good" if self.ok else "SOME KERNELS ARE WRONG ON THIS MACHINE"]
        return "\n".join(lines)


def _cell(test: SelfTest) -> str:
    return f"{'ok' if test.ok else 'FAIL'} {test.error:.1e}"


def doctor() -> Diagnosis:
    """Collect versions and processor, and run the self-test of every kernel: many small compilations, seconds."""
    versions = {"python": platform.python_version(), "sparsejax": sparsejax.__version__}
    versions |= {name: metadata.version(name) for name in _PACKAGES}
    return Diagnosis(versions, cpu_info(), TARGETS, self_test())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command: none but those of all commands."""


def run(arguments: argparse.Namespace, refused: Callable[[BaseException], int]) -> int:
    """Run the command; the exit status is 1 if a kernel is wrong."""
    if not arguments.json:
        print("testing every kernel: some 40 small compilations ...", file=sys.stderr)
    diagnosis = doctor()
    print(json.dumps(diagnosis.to_dict()) if arguments.json else diagnosis)
    return 0 if diagnosis.ok else 1
