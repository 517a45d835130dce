"""HTML pages from Jinja2 templates: text is escaped, and a missing value is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparsejax._extras import require


def page_template(function: str, folder: Path, name: str) -> Any:
    """Return a template of a folder; it may include ``report.css``, the style that all pages share.

    Args:
      function: for messages.
      folder: of the templates.
      name: of the template.

    Raises:
      ImportError: no Jinja2.
    """
    jinja2 = require("jinja2", function)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, Path(__file__).parent / "templates"]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    return environment.get_template(name)
