"""Charts of the page: matplotlib figures as SVG that follows the colours of the page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from html import escape
from typing import Any

from sparsejax._extras import require

# The light colours of report.css; each becomes its variable, so that charts turn dark with the page.
_VARIABLES = {
    "#1b1f24": "--ink", "#57606a": "--soft", "#808080": "--soft", "#d0d7de": "--rule",
    "#0b62c4": "--s0", "#b3440a": "--s1", "#0a7d4b": "--s2", "#8a3ea8": "--s3",
}  # fmt: skip
_INK, _SOFT, _, _RULE, *_SERIES = _VARIABLES
_STYLE = {
    **dict.fromkeys(("text.color", "patch.edgecolor", "axes.titlecolor"), _INK),
    **dict.fromkeys(("axes.labelcolor", "xtick.color", "ytick.color"), _SOFT),
    **dict.fromkeys(("axes.edgecolor", "grid.color"), _RULE),
    **dict.fromkeys(("axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 10),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon", "text.parse_math"), False),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none"),
    "font.family": "DejaVu Sans",
    "svg.fonttype": "none",
}


def svg(draw: Callable[[Any], Any], name: str, width: int, height: int, *, left: int = 50) -> str:
    """Return a chart as an SVG element, the same bytes for the same data.

    Args:
      draw: draws into matplotlib axes; the label that it sets on them is the description for screen readers.
      name: of the chart, unlike that of any other chart in the page.
      width: pixels.
      height: pixels.
      left: pixels for the labels of the vertical axis.
    """
    matplotlib = require("matplotlib", "BiasAudit.to_html")
    from matplotlib import style as style_sheet
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    out = io.StringIO()
    style = {**_STYLE, "axes.prop_cycle": matplotlib.cycler(color=_SERIES), "svg.hashsalt": name}
    with style_sheet.context(["default", style]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the browser has the font
        canvas = FigureCanvasSVG(Figure((width / 72, height / 72)))
        ax = canvas.figure.add_axes((left / width, 38 / height, 1 - (left + 8) / width, 1 - 62 / height))
        draw(ax)
        canvas.print_svg(out, metadata=dict.fromkeys(("Date", "Creator", "Format")))
    body = out.getvalue().partition("</defs>")[2]
    body = re.sub(r"<!--.*?-->|\n\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'<path d="[^"]*" style="fill: none"/>|(?<=<g) id="[^"]*"| transform="rotate\(-0 [^"]*"', "", body)
    body = re.sub(r' (?:d|x|y)="[^"]*"', lambda match: re.sub(r"(\.\d)\d+", r"\1", match[0]), body)
    body = re.sub(r"(?<=: )#\w{6}", lambda match: f"var({_VARIABLES.get(match[0], '--ink')})", body)
    body = re.sub(r'(<\w+ id="|href="#|url\(#)', rf"\g<1>{name}-", body)
    body = body.replace("'DejaVu Sans'", "system-ui, sans-serif")
    head = f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
    return f'{head} aria-label="{escape(str(ax.get_label()))}">{body}'
