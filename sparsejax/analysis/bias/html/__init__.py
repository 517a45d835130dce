"""The audit as one self-contained HTML page."""

from sparsejax.analysis.bias.html._page import fragment as fragment
from sparsejax.analysis.bias.html._page import page as page
