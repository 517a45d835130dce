"""Wanda: weights times the norms of what they multiply."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax._checks import fail


def wanda(kernel: jax.Array, inputs: jax.Array) -> jax.Array:
    """Score the weights of one layer by the activations they meet.

    score[i, o] = |w[i, o]| * sqrt(sum over examples x of x[i]^2)

    Compare within each output unit: ``mask_from_scores(..., scope="layer", structure=row_balanced())``. Go layer by
    layer, and compute the inputs of a layer with the layers before it pruned.

    Args:
      kernel: float[in, out], or float[*window, in, out] of a convolution.
      inputs: float[..., in] over a calibration set; of a convolution ``conv_inputs(...)``.

    Returns:
      Scores of the kernel's shape.

    Raises:
      ValueError: shapes disagree.

    Source: Sun et al. 2023, "A simple and effective pruning approach for large language models", equation 1.

    >>> wanda(jnp.array([[1.0, -2.0], [3.0, 0.5]]), jnp.array([[3.0, 0.0], [4.0, 1.0]])).tolist()
    [[5.0, 10.0], [3.0, 0.5]]
    """
    fan_in = math.prod(kernel.shape[:-1])
    if inputs.shape[-1] != fan_in:
        fail("wanda", "inputs", f"last axis {inputs.shape[-1]}", f"{fan_in} for a kernel of shape {kernel.shape}")
    norms = jnp.sqrt(jnp.sum(inputs.reshape(-1, fan_in) ** 2, 0))
    return jnp.abs(kernel) * norms.reshape(*kernel.shape[:-1], 1)


def conv_inputs(
    images: jax.Array, kernel_shape: Sequence[int], *, strides: Sequence[int], padding: Any = "SAME"
) -> jax.Array:
    """Return what each output pixel of a 2-D convolution multiplies, in the order of its kernel.

    Args:
      images: float[B, H, W, in].
      kernel_shape: ``(kh, kw, in, out)``; no groups.
      strides: two integers.
      padding: as of ``jax.lax.conv_general_dilated``.

    Returns:
      float[B, H', W', kh * kw * in], for ``wanda``.

    Source: the convolution as a matrix product.

    >>> conv_inputs(jnp.ones((1, 4, 4, 2)), (3, 3, 2, 8), strides=(1, 1), padding="VALID").shape
    (1, 2, 2, 18)
    """
    window, features = tuple(kernel_shape[:2]), kernel_shape[2]
    patches = jax.lax.conv_general_dilated_patches(
        images, window, tuple(strides), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    # lax puts the channel first; kernels put it last.
    split = patches.reshape(*patches.shape[:-1], features, math.prod(window))
    return jnp.swapaxes(split, -1, -2).reshape(patches.shape)
