"""Sparse training on CPUs: kernels, Flax modules, pruning and analysis for JAX."""

from sparsejax._cpu_info import cpu_info as cpu_info
from sparsejax.kernels import conv as conv
from sparsejax.kernels import spmm as spmm
from sparsejax.nn import densify as densify
from sparsejax.nn import sparsify as sparsify
from sparsejax.pattern import SparsityPattern as SparsityPattern

__version__ = "0.1.0"
