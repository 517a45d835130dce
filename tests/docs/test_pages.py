"""Every page of the documentation does what it says: its blocks run in order in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import documented

PAGES = {str(page.relative_to(documented.ROOT)): page for page in documented.pages()}
ELSEWHERE = {"docs/adding-a-method.md"}  # its blocks are files of the package: tests/pruning/test_adding_a_method.py
ORDINARY = [name for name, page in PAGES.items() if not documented.is_slow(page) and name not in ELSEWHERE]
SLOW = [name for name, page in PAGES.items() if documented.is_slow(page)]


def test_tutorials_and_how_to_pages_have_blocks():
    written = {
        str(page.relative_to(documented.ROOT))
        for folder in ("tutorials", "how-to")
        for page in (documented.ROOT / "docs" / folder).glob("*.md")
        if page.name != "index.md"
    }
    assert len(written) >= 13 and written - PAGES.keys() == set()


@pytest.mark.parametrize("name", ORDINARY)
def test_the_blocks_of_a_page_run_in_order(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert documented.run(PAGES[name]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ORDINARY, *SLOW])
def test_a_page_runs_in_a_process_of_its_own(name, tmp_path):
    tests = str(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-W", "error::DeprecationWarning:page", "-m", "helpers.documented", str(PAGES[name])]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_wrong_output_and_a_failing_block_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(documented, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 2\n```\n\n```python\nprint(x)\n```\n\n```text\n2\n```\n\n```bash\necho 1\n```\n")
    assert documented.run(page) == 3
    page.write_text("```python\nprint(1)\n```\n```text\n2\n```\n")
    with pytest.raises(AssertionError, match=r"page.md:1: the page shows\n2"):
        documented.run(page)
    page.write_text("```bash\nexit 3\n```\n")
    with pytest.raises(AssertionError, match="status 3"):
        documented.run(page)
    page.write_text("<!-- not run: takes a day -->\n```python\n1 / 0\n```\n```sh\nfalse\n```\n")
    assert documented.run(page) == 0
