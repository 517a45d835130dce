"""The audit as one self-contained HTML page: Jinja2 templates, and charts as SVG."""

from sparsejax.analysis.bias.html._page import fragment, page

__all__ = ["fragment", "page"]
