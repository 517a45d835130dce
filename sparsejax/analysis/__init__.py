"""Analysis of models and data: what pruning did, and whether the data can be trusted."""

from typing import TYPE_CHECKING

from sparsejax._surface import attributes

if TYPE_CHECKING:
    from sparsejax.analysis import bias, multisource, transfer

__all__ = ["bias", "multisource", "transfer"]

if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts every name
    __getattr__, __dir__ = attributes(__name__, submodules=__all__)
