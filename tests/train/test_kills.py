"""A short kill campaign over every command that resumes; `helpers/kill_campaign.py` has the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.processes import run_python, tail

SCRIPT = Path(__file__).resolve().parents[1] / "helpers" / "kill_campaign.py"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_commands_end_with_the_bits_of_uninterrupted_ones(shared_data):
    done = run_python(str(SCRIPT), "--kills", "40", "--data", str(shared_data), timeout=3500)
    assert done.returncode == 0, tail(done)
    assert "40 kills" in done.stdout and done.stdout.rstrip().endswith("differing: 0")
