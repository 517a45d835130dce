"""Padding, stride and dilation arithmetic, and the names of padding against Flax's own convolution."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import sparsejax
from helpers.grid import make_pattern, normal
from sparsejax.kernels._geometry import ConvGeometry, dilate, per_axis, resolve_padding

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def geometry(**changes: Any) -> ConvGeometry:
    """A small geometry with some fields changed."""
    fields: dict[str, Any] = {
        "in_spatial": (9, 6),
        "in_features": 4,
        "out_features": 6,
        "window": (3, 2),
        "strides": (2, 1),
        "padding": ((1, 0), (0, 2)),
        "input_dilation": (1, 2),
        "kernel_dilation": (2, 1),
        "groups": 2,
    }
    return ConvGeometry(**(fields | changes))


@pytest.mark.parametrize(("size", "dilation", "length"), [(0, 3, 0), (1, 3, 1), (4, 1, 4), (4, 3, 10)])
def test_dilate(size: int, dilation: int, length: int) -> None:
    assert dilate(size, dilation) == length


def test_out_spatial_counts_positions() -> None:
    g = geometry()
    assert g.out_spatial == ((9 + 1 - 5) // 2 + 1, 11 + 2 - 2 + 1)
    assert g.kernel_shape == (3, 2, 2, 6) and g.columns == 12


@pytest.mark.parametrize("window", [(11, 1), (1, 20)])
def test_window_that_does_not_fit_has_no_positions(window: tuple[int, int]) -> None:
    assert 0 in geometry(window=window).out_spatial


def test_attribute_is_what_the_handlers_decode() -> None:
    assert geometry().attribute().tolist() == [2, 4, 6, 9, 3, 3, 2, 1, 1, 2, 6, 12, 2, 1, 0, 2, 1]
    one = geometry(
        in_spatial=(6,), window=(2,), strides=(1,), padding=((0, 2),), input_dilation=(2,), kernel_dilation=(1,)
    )
    assert one.attribute().tolist() == [2, 4, 6, 1, 1, 1, 1, 0, 1, 1, 6, 12, 2, 1, 0, 2, 1]
    assert one.attribute().dtype == np.int64


@pytest.mark.parametrize(("value", "want"), [(None, (1, 1)), (3, (3, 3)), ((2, 5), (2, 5)), ([np.int32(2), 1], (2, 1))])
def test_per_axis(value: Any, want: tuple[int, ...]) -> None:
    assert per_axis("conv", "strides", value, 2) == want


@pytest.mark.parametrize("value", [0, -1, (1,), (1, 2, 3), (1, 0), (1.5, 1)])
def test_per_axis_refuses(value: Any) -> None:
    with pytest.raises(ValueError, match=r"conv: strides has value .*; expected a positive integer, or 2 of them"):
        per_axis("conv", "strides", value, 2)


@pytest.mark.parametrize(
    ("padding", "want"),
    [
        ("VALID", ((0, 0), (0, 0))),
        ("CIRCULAR", ((2, 2), (1, 2))),
        (2, ((2, 2), (2, 2))),
        ((1, 3), ((1, 1), (3, 3))),
        (((1, 2), (0, 3)), ((1, 2), (0, 3))),
        ([(-1, 0), 2], ((-1, 0), (2, 2))),
    ],
)
def test_resolve_padding(padding: Any, want: Any) -> None:
    assert resolve_padding("conv", padding, (9, 9), (5, 4), (1, 1), (1, 1), (1, 1)) == want


def test_same_gives_the_ceiling_of_size_over_stride() -> None:
    for size in range(1, 20):
        for stride in range(1, 5):
            for window in range(1, 6):
                pairs = resolve_padding("conv", "SAME", (size,), (window,), (stride,), (1,), (1,))
                g = ConvGeometry((size,), 1, 1, (window,), (stride,), pairs, (1,), (1,), 1)
                assert g.out_spatial == (-(-size // stride),)


NAMED = [(rank, padding) for rank in (1, 2) for padding in ("SAME", "VALID", "CIRCULAR", 2, "pairs")]


@pytest.mark.parametrize(("rank", "padding"), [*NAMED, (1, "CAUSAL")])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 2)])
def test_as_flax(rank: int, padding: Any, stride: int, dilation: int) -> None:
    """Same arguments, same result and gradients as ``nnx.Conv`` with the same kernel."""
    padding = [(2, 1)] * rank if padding == "pairs" else padding
    options = {"strides": stride, "padding": padding, "kernel_dilation": dilation, "feature_group_count": 2}
    window, spatial = (3, 4)[:rank], (11, 8)[:rank]
    dense = nnx.Conv(4, 6, window, **options, use_bias=False, rngs=nnx.Rngs(0))
    pattern, mask = make_pattern("random", (*window, 2, 6))
    graph, state = nnx.split(dense)
    x = jnp.asarray(normal(1, (5, *spatial, 4), "float32"))

    def run_dense(kernel: jax.Array, x: jax.Array) -> jax.Array:
        return nnx.merge(graph, jax.tree.map(lambda _: kernel, state))(x)

    kernel = jnp.asarray(np.where(mask, normal(2, mask.shape, "float32"), np.float32(0)))
    want, dense_vjp = jax.vjp(run_dense, kernel, x)
    got, vjp = jax.vjp(lambda d, v: sparsejax.conv(d, pattern, v, **options), pattern.gather(kernel), x)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    ct = jnp.asarray(normal(3, want.shape, "float32"))
    for a, b in zip(vjp(ct), (pattern.gather(dense_vjp(ct)[0]), dense_vjp(ct)[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
