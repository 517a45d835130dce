"""Shows the examples of docstrings as code: Markdown would read their prompts as nested quotations."""

from __future__ import annotations

import re
from typing import Any

import griffe

# A prompt at the start of a line, and what follows up to the next empty line.
_EXAMPLE = re.compile(r"^( *)>>> .*(?:\n(?! *$).*)*", re.MULTILINE)


def fenced(docstring: str) -> str:
    """Return a docstring whose examples are fenced blocks of code.

    >>> print(fenced("Add one.\\n\\n>>> add(1)\\n2"))
    Add one.
    <BLANKLINE>
    ```pycon
    >>> add(1)
    2
    ```
    """
    return _EXAMPLE.sub(lambda match: f"{match[1]}```pycon\n{match[0]}\n{match[1]}```", docstring)


class DoctestBlocks(griffe.Extension):
    """Rewrites each docstring once, before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Fence the examples of one object."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
