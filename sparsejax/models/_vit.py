"""Vision transformers with timm's layer names."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from sparsejax._checks import check_integer, fail
from sparsejax.models._attention import attend, gelu, linear
from sparsejax.models._layers import check_images

_EPSILON = 1e-6  # timm's and torchvision's; load_torch sets Hugging Face's, 1e-12


class _Attention(nnx.Module):
    """Self-attention with the fused projection ``qkv``."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs):
        self.heads = heads
        self.qkv = linear(width, 3 * width, rngs)
        self.proj = linear(width, width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = jnp.split(self.qkv(x), 3, axis=-1)
        return self.proj(attend(q, k, v, self.heads))


class _Mlp(nnx.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, width: int, hidden: int, rngs: nnx.Rngs):
        self.fc1 = linear(width, hidden, rngs)
        self.fc2 = linear(hidden, width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(gelu(self.fc1(x)))


class _Block(nnx.Module):
    """Attention and a two-layer network, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, hidden: int, rngs: nnx.Rngs):
        self.norm1 = nnx.LayerNorm(width, epsilon=_EPSILON, rngs=rngs)
        self.attn = _Attention(width, heads, rngs)
        self.norm2 = nnx.LayerNorm(width, epsilon=_EPSILON, rngs=rngs)
        self.mlp = _Mlp(width, hidden, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _PatchEmbed(nnx.Module):
    """One linear map of every patch, as a convolution."""

    def __init__(self, in_features: int, width: int, patch: int, rngs: nnx.Rngs):
        size = (patch, patch)
        self.proj = nnx.Conv(in_features, width, size, strides=size, padding="VALID", rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = self.proj(images)
        return x.reshape(x.shape[0], -1, x.shape[-1])


class ViT(nnx.Module):
    """A vision transformer whose attribute paths are timm's parameter names; prefer `vit`.

    ``blocks[0].attn.qkv.kernel`` is timm's ``blocks.0.attn.qkv.weight``; ``patch_embed.proj`` maps patches,
    ``cls_token`` and ``pos_embed`` are parameters, ``norm`` comes after the blocks, ``head`` is the classifier.

    Args:
      num_classes: outputs of the classifier.
      width: features of a token.
      depth: blocks.
      heads: attention heads; they divide ``width``.
      hidden: width of the two-layer networks; 4 * width if None.
      image_size: height and width of the images, pixels; multiples of ``patch``.
      patch: height and width of a patch, pixels.
      in_features: channels of the images.
      cls_token: classify the token that stands for the image; if False, the mean of all normalised tokens.
      rngs: random streams for initialisation.

    Raises:
      ValueError: sizes that do not divide; when called, images of another size.

    Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", section 3.1; GELU and epsilon are timm's.

    >>> model = ViT(3, width=8, depth=1, heads=2, image_size=(8, 8), patch=4, in_features=1, rngs=nnx.Rngs(0))
    >>> model(jnp.ones((2, 8, 8, 1))).shape, model.pos_embed.shape
    ((2, 3), (1, 5, 8))
    """

    dense_parts: ClassVar[tuple[str, ...]] = ("patch_embed", "head")

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        width: int,
        depth: int,
        heads: int,
        hidden: int | None = None,
        image_size: tuple[int, int] = (224, 224),
        patch: int = 16,
        in_features: int = 3,
        cls_token: bool = True,
        rngs: nnx.Rngs,
    ):
        check_integer("ViT", "depth", depth)
        check_integer("ViT", "patch", patch)
        if width % heads:
            fail("ViT", "heads", f"value {heads}", f"a divisor of the width {width}")
        if any(side < patch or side % patch for side in image_size):
            fail("ViT", "image_size", f"value {image_size}", f"multiples of the patch, {patch} pixels")
        self.in_features, self.image_size = in_features, image_size
        tokens = (image_size[0] // patch) * (image_size[1] // patch) + cls_token
        normal = nnx.initializers.normal(0.02)
        self.patch_embed = _PatchEmbed(in_features, width, patch, rngs)
        self.cls_token = nnx.Param(jnp.zeros((1, 1, width))) if cls_token else None
        self.pos_embed = nnx.Param(normal(rngs.params(), (1, tokens, width)))
        self.blocks = nnx.List([_Block(width, heads, hidden or 4 * width, rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, epsilon=_EPSILON, rngs=rngs)
        self.head = nnx.Linear(width, num_classes, rngs=rngs)

    @property
    def epsilon(self) -> float:
        """What the norms add to the variance: 1e-6, or as the checkpoint's library has it."""
        return float(self.norm.epsilon)

    @epsilon.setter
    def epsilon(self, value: float) -> None:
        for _, module in nnx.iter_modules(self):
            if isinstance(module, nnx.LayerNorm):
                module.epsilon = value

    def features(self, images: jax.Array) -> jax.Array:
        """Return the features of each image: ``float[B, H, W, C] -> float[B, width]``."""
        check_images("ViT", images, self.in_features)
        if tuple(images.shape[1:3]) != self.image_size:
            fail("ViT", "images", f"shape {tuple(images.shape)}", f"{self.image_size} pixels, as image_size")
        x = self.patch_embed(images)
        if self.cls_token is not None:
            token = jnp.broadcast_to(self.cls_token[...], (x.shape[0], 1, x.shape[-1])).astype(x.dtype)
            x = jnp.concatenate([token, x], axis=1)
        x = x + self.pos_embed[...]
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return x.mean(1) if self.cls_token is None else x[:, 0]

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return logits: ``float[B, H, W, C] -> float[B, num_classes]``."""
        return self.head(self.features(images))


_SIZES = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}


def vit(
    size: str,
    num_classes: int = 1000,
    *,
    image_size: tuple[int, int] = (224, 224),
    patch: int = 16,
    in_features: int = 3,
    cls_token: bool = True,
    rngs: nnx.Rngs,
) -> ViT:
    """Build ViT-Ti, ViT-S or ViT-B: 12 blocks of width 192, 384 or 768 with heads of 64 features.

    Args:
      size: "tiny", "small" or "base".
      num_classes: outputs of the classifier.
      image_size: height and width of the images, pixels.
      patch: height and width of a patch, pixels.
      in_features: channels of the images.
      cls_token: see `ViT`.
      rngs: random streams for initialisation.

    Raises:
      ValueError: an unknown size; image sizes that are no multiples of the patch.

    Source: Dosovitskiy et al. 2021, table 1 (base); Touvron et al. 2021, "DeiT", table 1 (tiny, small).

    >>> model = nnx.eval_shape(lambda: vit("tiny", rngs=nnx.Rngs(0)))
    >>> len(model.blocks), model.blocks[0].attn.qkv.kernel.shape
    (12, (192, 576))
    """
    if size not in _SIZES:
        fail("vit", "size", f"value {size!r}", "one of " + ", ".join(map(repr, _SIZES)))
    width, heads = _SIZES[size]
    return ViT(
        num_classes,
        width=width,
        depth=12,
        heads=heads,
        image_size=image_size,
        patch=patch,
        in_features=in_features,
        cls_token=cls_token,
        rngs=rngs,
    )
