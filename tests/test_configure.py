"""Large blocks are kept by the process after they are freed, where the allocator is glibc's."""

from __future__ import annotations

import platform
import subprocess
import sys

import jax
import pytest

from sparsejax import configure

# Minor page faults of the second of two allocations of 64 MiB that are filled and freed.
_FAULTS = """
import resource, sys
import numpy as np
import sparsejax
if sys.argv[1] == "keep":
    environment = {"XLA_FLAGS": "--a"}
    did = sparsejax.configure(environment)
    assert did.keeps_memory and did.sets_xla_flag, did
    assert environment["XLA_FLAGS"] == "--a --xla_backend_extra_options=xla_cpu_disable_tiled_emitter"
    assert not sparsejax.configure(environment).sets_xla_flag
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = np.ones(2**23)
    del block
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_a_freed_block_is_used_again_without_fresh_pages():
    faults = {}
    for mode in ("keep", "leave"):
        command = [sys.executable, "-c", _FAULTS, mode]
        faults[mode] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert faults["keep"] < 10 < faults["leave"]


def test_what_xla_has_read_is_not_set():
    jax.block_until_ready(jax.numpy.zeros(1))
    environment = {"MALLOC_ARENA_MAX": "1"}
    did = configure(environment)
    assert not did.sets_xla_flag and "it has computed already" in str(did) and "XLA_FLAGS" not in environment


@pytest.mark.parametrize("name", ["GLIBC_TUNABLES", "MALLOC_MMAP_MAX_"])
def test_settings_of_the_user_stand(name):
    configuration = configure({name: "0"})
    assert not configuration.keeps_memory and name in str(configuration)
