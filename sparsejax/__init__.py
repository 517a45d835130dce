"""Sparse training on CPUs: kernels, Flax modules, pruning and analysis for JAX."""

from typing import TYPE_CHECKING

from sparsejax._configure import configure
from sparsejax._cpu_info import cpu_info
from sparsejax._surface import attributes
from sparsejax.kernels import conv, spmm
from sparsejax.nn import densify, sparsify
from sparsejax.nn._export import export, load_exported
from sparsejax.pattern import SparsityPattern

if TYPE_CHECKING:
    from sparsejax import analysis, data, kernels, machine, models, nn, pruning, train

__version__ = "0.2.0.dev0"

__all__ = [
    "SparsityPattern",
    "__version__",
    "analysis",
    "configure",
    "conv",
    "cpu_info",
    "data",
    "densify",
    "export",
    "kernels",
    "load_exported",
    "machine",
    "models",
    "nn",
    "pruning",
    "sparsify",
    "spmm",
    "train",
]

if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts every name
    __getattr__, __dir__ = attributes(
        __name__, submodules=("analysis", "data", "machine", "models", "pruning", "train")
    )
