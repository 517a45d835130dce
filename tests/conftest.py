"""Fixtures for every test, and the settings that must stand before JAX starts."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Files and the processes that they start compile much the same programs: XLA's compiler is half of the run's time. One
# folder for each worker, because JAX writes into it without a lock.
PROGRAMS = tempfile.TemporaryDirectory(prefix="sparsejax-programs-")
os.environ["JAX_COMPILATION_CACHE_DIR"] = PROGRAMS.name
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

TWO_DEVICES = "--xla_force_host_platform_device_count=2"
if TWO_DEVICES not in os.environ.get("XLA_FLAGS", ""):  # read once, when the first backend starts
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {TWO_DEVICES}".strip()

sys.path.insert(0, str(Path(__file__).resolve().parent))  # the helpers that several folders of tests share

import jax  # noqa: E402
import pytest  # noqa: E402

from helpers.sampling import one_in  # noqa: E402

# A test runs what it compiles a few times at most. Processes that it starts compile as users do.
jax.config.update("jax_disable_most_optimizations", True)


# Workers take the files in their order: folders with files that take a minute first, so that none is left to one worker
# at the end. Folders that are not named here are in between; the last two have short files only.
FIRST, LAST = ("notebooks", "cpp", "docs", "train", "kernels", "examples"), ("data", "pattern")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what ``sampling`` leaves out, and say so; put long files first."""
    kept = one_in(items)
    config.hook.pytest_deselected(items=[*({*items} - {*kept})])
    order = {folder: i - len(FIRST) for i, folder in enumerate(FIRST)} | dict.fromkeys(LAST, 1)
    items[:] = sorted(kept, key=lambda item: order.get(item.path.parent.name, 0))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data beside the repository, or skip the test."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


@pytest.fixture
def x64() -> Iterator[None]:
    """Run the test with 64-bit types, and no other test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def optimized() -> Iterator[None]:
    """Compile as users do: for what compares the bits of different programs, or measures time."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def strict_dtypes() -> Iterator[None]:
    """Refuse implicit promotion between dtypes in the test."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs() -> Iterator[None]:
    """Drop compiled programs after each file: kept to the end, they take gigabytes."""
    yield
    jax.clear_caches()
