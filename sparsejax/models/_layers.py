"""Building blocks shared by the models: torchvision's padding, initialisation and batch norm constants."""

from __future__ import annotations

import jax
from flax import nnx

from sparsejax._checks import fail
from sparsejax.kernels import avg_pool, max_pool

__all__ = ["avg_pool", "batch_norm", "check_choice", "check_images", "conv", "global_average", "max_pool"]

# He et al. 2015, section 2.2, backward form: the variance is preserved from the output side.
_HE_FAN_OUT = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


def conv(
    in_features: int, out_features: int, size: int, *, stride: int = 1, groups: int = 1, rngs: nnx.Rngs
) -> nnx.Conv:
    """Return a bias-free ``size x size`` convolution with torchvision's symmetric padding.

    ``"SAME"`` would pad strided convolutions on the right only, and torch weights would be off by a pixel.
    """
    pad = (size - 1) // 2
    return nnx.Conv(
        in_features,
        out_features,
        (size, size),
        strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        feature_group_count=groups,
        use_bias=False,
        kernel_init=_HE_FAN_OUT,
        rngs=rngs,
    )


def batch_norm(features: int, *, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """Return a batch norm with torch's constants (torch's momentum 0.1 is 0.9 here)."""
    return nnx.BatchNorm(features, momentum=0.9, epsilon=1e-5, rngs=rngs)


def global_average(x: jax.Array) -> jax.Array:
    """Average over all pixels: ``float[B, H, W, C] -> float[B, C]``."""
    height, width = x.shape[1:3]
    return avg_pool(x, (height, width)).reshape(x.shape[0], x.shape[-1])


def check_images(function: str, images: jax.Array, in_features: int) -> None:
    """Refuse anything that is not ``[B, H, W, in_features]``."""
    if images.ndim != 4 or images.shape[-1] != in_features:
        fail(
            function,
            "images",
            f"shape {tuple(images.shape)}",
            f"(batch, height, width, {in_features})",
            "Are the channels last?",
        )


def check_choice(function: str, operand: str, got: str, choices: tuple[str, ...]) -> None:
    """Refuse a name that is not among ``choices``."""
    if got not in choices:
        fail(function, operand, f"value {got!r}", "one of " + ", ".join(map(repr, choices)))
