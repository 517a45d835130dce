"""``SparseLoRALinear``: ``flax.nnx.LoRALinear`` over a sparse kernel."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx

from sparsejax._checks import fail
from sparsejax.nn._layer import check_exact_type
from sparsejax.nn._linear import SparseLinear, options


class SparseLoRALinear(SparseLinear):
    """Sparse linear layer with a dense low-rank update: ``y = x @ K + bias + (x @ A) @ B``.

    Made by ``from_dense``; the update ``lora`` is an ``nnx.LoRA``, whose parameters are ``nnx.LoRAParam`` as in Flax.

    Source: Hu et al. 2021, "LoRA: low-rank adaptation of large language models"; behaviour of ``flax.nnx.LoRALinear``.

    >>> import jax.numpy as jnp
    >>> dense = nnx.LoRALinear(4, 3, lora_rank=2, rngs=nnx.Rngs(0))
    >>> SparseLoRALinear.from_dense(dense, jnp.ones((4, 3), bool))(jnp.ones((1, 4))).shape
    (1, 3)
    """

    lora: nnx.LoRA

    def __call__(self, inputs: jax.Array, out_sharding: None = None) -> jax.Array:
        """Map ``float[..., in_features]`` to ``float[..., out_features]``; any leading axes."""
        return super().__call__(inputs, out_sharding) + self.lora(inputs)

    @classmethod
    def from_dense(cls, linear: nnx.Linear, mask: Any = None) -> SparseLoRALinear:
        """Convert an ``nnx.LoRALinear``: the kernel becomes sparse, the low-rank update is copied.

        Raises:
          ValueError: as ``SparseLinear.from_dense``.
          TypeError: not an ``nnx.LoRALinear``, or a subclass.
        """
        check_exact_type("SparseLoRALinear.from_dense", linear, nnx.LoRALinear)
        assert isinstance(linear, nnx.LoRALinear)
        sparse = cls._from_linear("SparseLoRALinear.from_dense", linear, mask, ignored=("lora",))
        sparse.lora = nnx.clone(linear.lora, graph=True)
        return sparse

    def to_dense(self) -> nnx.LoRALinear:
        """Return the same layer as ``flax.nnx.LoRALinear``, zeros where nothing is stored; shares no variable."""
        lora = self.lora
        if lora.base_module is not None:
            fail("SparseLoRALinear.to_dense", "lora", "a base module", "none, as nnx.LoRALinear makes it")
        dense = nnx.LoRALinear(
            self.in_features,
            self.out_features,
            lora_rank=lora.lora_a.shape[-1],
            rngs=nnx.Rngs(0),
            **options(self),
        )
        self._give_parameters(dense)
        dense.lora = nnx.clone(lora, graph=True)
        return dense
