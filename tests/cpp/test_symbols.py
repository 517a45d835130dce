"""Code compiled for one instruction set must not leak into the rest of the library.

A function template from a header, compiled with -mavx512f in one object, may be the copy that the linker keeps for all:
an illegal instruction on older machines. So the kernels' objects define their getter and nothing else. Objects for
link-time optimisation name what would be defined, without the many passes that generate the code.
"""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

SIMD = Path(__file__).resolve().parents[2] / "xla_ffi" / "simd"
X86, ARM = ("x86_64", "AMD64"), ("aarch64", "arm64")
AVX512 = ["-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq"]
LEVELS = {
    "baseline": ("kernels.cc", X86 + ARM, []),
    "avx2": ("kernels.cc", X86, ["-mavx2", "-mfma"]),
    "avx512": ("kernels.cc", X86, AVX512),
    "avx512_bf16": ("kernels_bfloat16.cc", X86, [*AVX512, "-mavx512bf16", "-DSPARSEJAX_ISA_BASE=avx512"]),
    "neon": ("kernels.cc", ARM, []),
    "neon_bf16": ("kernels_bfloat16.cc", ARM, ["-march=armv8.2-a+bf16", "-DSPARSEJAX_ISA_BASE=neon"]),
}


@pytest.mark.parametrize("level", LEVELS)
def test_objects_define_only_their_getter(level, tmp_path):
    compiler, nm = shutil.which("c++") or shutil.which("g++"), shutil.which("gcc-nm") or shutil.which("nm")
    if compiler is None or nm is None:
        pytest.skip("no compiler")
    source, machines, options = LEVELS[level]
    if platform.machine() not in machines:
        pytest.skip(f"not one of {', '.join(machines)}")
    flags = ["-std=c++20", "-O1", "-flto", "-fPIC", "-fno-exceptions", "-fno-rtti", *options]
    namespace = f"-DSPARSEJAX_ISA_NAMESPACE={level}"
    target = tmp_path / "kernels.o"
    subprocess.run([compiler, *flags, namespace, "-c", str(SIMD / source), "-o", str(target)], check=True)
    listing = subprocess.run(
        [nm, "-C", "--defined-only", "-g", str(target)], capture_output=True, text=True, check=True
    )
    defined = [line.split(maxsplit=2)[2] for line in listing.stdout.splitlines()]
    assert defined == [f"sparsejax::{level}::GetTable()"]
