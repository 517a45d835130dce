"""``SparseLoRALinear``: ``flax.nnx.LoRALinear`` over a sparse kernel."""

from __future__ import annotations

from typing import Any, Self

import jax
from flax import nnx

from sparsejax._checks import fail
from sparsejax._typing import ArrayLike
from sparsejax.nn._linear import SparseLinear


class SparseLoRALinear(SparseLinear):
    """Sparse linear layer with a dense low-rank update: ``y = x @ K + bias + (x @ A) @ B``.

    Made by ``from_dense``, which makes the kernel sparse and copies the update ``lora``, an ``nnx.LoRA`` whose
    parameters are ``nnx.LoRAParam`` as in Flax.

    Source: Hu et al. 2021, "LoRA: low-rank adaptation of large language models"; behaviour of ``flax.nnx.LoRALinear``.

    >>> import jax.numpy as jnp
    >>> dense = nnx.LoRALinear(4, 3, lora_rank=2, rngs=nnx.Rngs(0))
    >>> SparseLoRALinear.from_dense(dense, jnp.ones((4, 3), bool))(jnp.ones((1, 4))).shape
    (1, 3)
    """

    lora: nnx.LoRA

    dense_class = nnx.LoRALinear
    _kept = ("lora",)

    def __call__(self, inputs: jax.Array, out_sharding: None = None) -> jax.Array:
        """Map ``float[..., in_features]`` to ``float[..., out_features]``; any leading axes."""
        return super().__call__(inputs, out_sharding) + self.lora(inputs)

    @classmethod
    def from_dense(cls, dense: Any, mask: ArrayLike | None = None) -> Self:
        """Convert an ``nnx.LoRALinear``; arguments and errors as of ``SparseLayer.from_dense``."""
        sparse = super().from_dense(dense, mask)
        sparse.lora = nnx.clone(dense.lora, graph=True)
        return sparse

    def to_dense(self) -> nnx.LoRALinear:
        """Return the same layer as ``flax.nnx.LoRALinear``, zeros where nothing is stored; shares no variable."""
        if self.lora.base_module is not None:
            fail("SparseLoRALinear.to_dense", "lora", "a base module", "none, as nnx.LoRALinear makes it")
        dense: Any = self._to_dense(lora_rank=self.lora.lora_a.shape[-1])
        dense.lora = nnx.clone(self.lora, graph=True)
        return dense
