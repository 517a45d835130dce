"""Every instruction set of this machine, each in a process of its own: the choice is made when the library loads."""

from __future__ import annotations

import pytest

from helpers.processes import LITTLE_OPTIMIZED, run_python, tail
from sparsejax import _ffi

RUN = """
from helpers.kernel_checks import compact
from sparsejax import _ffi
compact()
print(_ffi.isa())
"""


@pytest.mark.parametrize("isa", _ffi.supported_isas())
def test_instruction_set(isa: str) -> None:
    process = run_python("-c", RUN, env={"SPARSEJAX_ISA": isa} | LITTLE_OPTIMIZED, timeout=300)
    assert process.returncode == 0, tail(process)
    assert process.stdout.split()[-1] == isa


def test_the_best_is_chosen_by_default() -> None:
    process = run_python("-c", "from sparsejax import _ffi; print(_ffi.isa())", timeout=60)
    assert process.stdout.split()[-1] == _ffi.supported_isas()[0], tail(process)


@pytest.mark.parametrize("wanted", ["sse9", "AVX2", "avx2,baseline"])
def test_unknown_instruction_set(wanted: str) -> None:
    process = run_python("-c", "import sparsejax", env={"SPARSEJAX_ISA": wanted}, timeout=60)
    names = ", ".join(_ffi.supported_isas())
    assert process.returncode != 0
    assert f"SPARSEJAX_ISA has value '{wanted}'; expected one that this processor supports: {names}." in process.stderr
