"""The blocks of a page of the documentation, run in the order in which a reader copies them.

A ``python`` block continues the Python session of its page; a ``bash`` block runs in the page's folder. A ``text``
block that follows directly is the output, compared as by doctest: ``...`` stands for anything. Blocks of other
languages (``sh`` for installation, ``json``, ...) are shown only, and so is one below ``<!-- not run: reason -->``.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(
    r"(?:<!-- not run: (?P<why>[^>]+?) -->\s*)?^```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```$", re.M | re.S
)
_OUTPUT = re.compile(r"\s*^```text\n(?P<text>.*?)^```$", re.M | re.S)
_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """A block that is run: its line in the page, language, code, and the output shown below it."""

    line: int
    language: str
    code: str
    output: str | None


def pages() -> list[Path]:
    """Every page with blocks that run, the README among them."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in found if "notebooks" not in page.parts and any(blocks(page))]


def is_slow(page: Path) -> bool:
    """Whether the page says that its blocks take long."""
    return "<!-- slow -->" in page.read_text()


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page that are run."""
    text = page.read_text()
    for match in _FENCE.finditer(text):
        if match["language"] in ("python", "bash") and not match["why"]:
            shown = _OUTPUT.match(text, match.end())
            line = text.count("\n", 0, match.start("code"))
            yield Block(line, match["language"], match["code"], shown["text"] if shown else None)


def run(page: Path) -> int:
    """Run the page in the current folder; return the number of blocks. Raises at the first that fails or differs."""
    session = types.ModuleType("page")
    sys.modules["page"] = session  # where classes that a page defines are found
    count = 0
    for block in blocks(page):
        count += 1
        where = f"{page.relative_to(ROOT)}:{block.line}"
        printed = _python(block, session, where) if block.language == "python" else _bash(block, where)
        if block.output is not None and not doctest.OutputChecker().check_output(block.output, printed, _FLAGS):
            raise AssertionError(f"{where}: the page shows\n{block.output}\nbut the block printed\n{printed}")
    return count


def _python(block: Block, session: types.ModuleType, where: str) -> str:
    code = compile("\n" * block.line + block.code, where, "exec")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, session.__dict__)
    return printed.getvalue()


def _bash(block: Block, where: str) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euc", block.code], env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=500
    )
    if done.returncode:
        raise AssertionError(f"{where}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":  # python -m helpers.documented PAGE: in a process and a folder of its own
    print(run(Path(sys.argv[1]).resolve()), "blocks")
