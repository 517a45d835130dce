"""Between sparse layers no activation has another layout than theirs, is copied or transposed, in both directions."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax import SparsityPattern, conv
from sparsejax.kernels import Layout, Layouts, add_bias, avg_pool, max_pool
from sparsejax.nn import BatchNorm, norm_act

BATCH, SIDE, CHANNELS = 64, 12, 32
SHAPE = re.compile(r"f32\[(\d+(?:,\d+)*)\]\{(\d+(?:,\d+)*)")


def make_layers(count, shape):
    rng = np.random.default_rng(0)
    patterns = [SparsityPattern.from_mask(rng.random(shape) < 0.1) for _ in range(count)]
    data = [p.gather(jnp.asarray(rng.standard_normal(shape) * 0.1, jnp.float32)) for p in patterns]
    return patterns, data


def entry_instructions(text):
    """Instructions of the entry computation, the only ones that own buffers."""
    entry = text[text.index("\nENTRY ") :]
    return [line.strip() for line in entry.splitlines() if " = " in line]


def offenders(text, size, edges, layout=Layout.BATCH_MINOR):
    """Instructions of activation size of another layout, or copies, but those that feed or read the network's edges."""
    out = []
    for line in entry_instructions(text):
        name, body = line.removeprefix("ROOT ").split(" = ", 1)
        result = body.split(" ", 1)[0]
        for found in SHAPE.findall(result):
            dims, order = ([int(n) for n in numbers.split(",")] for numbers in found)
            if np.prod(dims) < size or len(dims) < 3:
                continue
            copied = re.search(r"\} (copy|transpose)\(", body) is not None
            if (order != list(layout.minor_to_major(len(dims))) or copied) and not any(edge in name for edge in edges):
                out.append(line[:200])
    return out


def large(line, size):
    """Whether the instruction's result has at least ``size`` elements."""
    found = SHAPE.search(line)
    return found is not None and np.prod([int(d) for d in found.group(1).split(",")]) >= size


def compiled_step(loss, *args):
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*args).compile().as_text()


def head():
    """A last sparse layer of one feature, so that what follows it is smaller than an activation."""
    pattern = SparsityPattern.from_mask(np.ones((1, 1, CHANNELS, 1), bool))
    return pattern, pattern.gather(jnp.ones(pattern.shape))


def assert_stays(layout, text, size):
    # The input arrives row-major, as JAX arrays do, and is copied once into the layout of the first layer.
    assert offenders(text, size, ("%x", "%copy", "%bitcast"), layout) == []
    copies = [line for line in entry_instructions(text) if re.search(r"\} copy\(", line) and large(line, size)]
    assert len(copies) <= (layout is Layout.BATCH_MINOR), copies


@pytest.mark.parametrize(("fused", "layout"), [(False, Layout.BATCH_MINOR), *((True, layout) for layout in Layout)])
def test_two_residual_blocks(fused, layout):
    """With `norm_act`, and as a user's own model would write it."""
    patterns, data = make_layers(5, (3, 3, CHANNELS, CHANNELS))
    modules = [BatchNorm(CHANNELS, rngs=nnx.Rngs(0)) for _ in range(4)]
    for module in modules:
        module.layout = layout
    graph, norms = nnx.split(modules)
    last, last_data = head()
    convolved = functools.partial(conv, layouts=Layouts(layout, layout))

    def activated(norm, x, residual=None):
        if fused:
            return norm_act(norm, x, residual)
        return jax.nn.relu(norm(x) if residual is None else norm(x) + residual)

    def network(data, norms, x, patterns):
        norm = nnx.merge(graph, norms)
        x = convolved(data[4], patterns[4], x)
        for i in (0, 2):
            y = activated(norm[i], convolved(data[i], patterns[i], x))
            x = activated(norm[i + 1], convolved(data[i + 1], patterns[i + 1], y), x)
        return convolved(last_data, last, x)

    def loss(data, norms, x, target, patterns):
        return ((network(data, norms, x, patterns) - target) ** 2).mean()

    x = jnp.ones((BATCH, SIDE, SIDE, CHANNELS))
    text = compiled_step(loss, data, norms, x, x[..., :1], patterns)
    assert text.count('custom_call_target="sparsejax_conv_v2"') == 6
    assert text.count('custom_call_target="sparsejax_conv_weight_grad_v2"') == 1  # of the first: nobody asks for x's
    assert text.count('custom_call_target="sparsejax_conv_backward_v2"') == 4
    assert text.count('custom_call_target="sparsejax_batch_norm_v2"') == 4
    assert text.count('custom_call_target="sparsejax_batch_norm_grad_v2"') == 4
    assert_stays(layout, text, x.size)
    elementwise = [line for line in entry_instructions(text) if " fusion(" in line and large(line, x.size)]
    if fused:
        # XLA would make scalar code of a lone batch-minor addition; a lone clamp would be one pass over memory more.
        lone = "clamp" if layout is Layout.ROW_MAJOR else "(add|clamp)"
        assert not [line for line in elementwise if re.match(rf"%(wrapped_{lone}|broadcast_clamp)", line)]
        # Nothing is left but the sums of the cotangents that meet at the two shortcuts, and the loss
        assert len(elementwise) <= 3, elementwise


def test_a_clamp_of_the_user_stays():
    """Operations of ours look through the clamp that theirs end with, and through no other."""
    patterns, data = make_layers(2, (1, 1, CHANNELS, CHANNELS))
    x = jnp.asarray(np.random.default_rng(1).standard_normal((8, 2, 2, CHANNELS)), jnp.float32)

    def clipped(high):
        return conv(data[1], patterns[1], jax.lax.clamp(-jnp.inf, conv(data[0], patterns[0], x), high))

    between = jax.jit(lambda: clipped(0.1))()
    np.testing.assert_array_equal(between, clipped(0.1))
    assert np.any(between != jax.jit(lambda: clipped(jnp.inf))())


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -0.0])
def test_special_values_leave_unchanged(value):
    pattern = SparsityPattern.from_mask(np.eye(CHANNELS, dtype=bool)[None, None])
    y = conv(jnp.ones(CHANNELS), pattern, jnp.full((16, 1, 1, CHANNELS), value))
    np.testing.assert_array_equal(y, value)


@pytest.mark.parametrize("kind", ["bias", "max_pool", "avg_pool"])
def test_biases_and_pooling_between_sparse_layers(kind):
    patterns, data = make_layers(2, (3, 3, CHANNELS, CHANNELS))
    last, last_data = head()

    def loss(data, bias, x, patterns):
        y = add_bias(conv(data[0], patterns[0], x), bias)
        if kind != "bias":
            y = {"max_pool": max_pool, "avg_pool": avg_pool}[kind](y, (2, 2), (2, 2))
        y = jax.nn.relu(conv(data[1], patterns[1], jax.nn.relu(y)))
        return (conv(last_data, last, y) ** 2).mean()

    x = jnp.ones((BATCH, SIDE, SIDE, CHANNELS))
    text = compiled_step(loss, data, jnp.ones(CHANNELS), x, patterns)
    assert_stays(Layout.BATCH_MINOR, text, x.size if kind == "bias" else x.size // 4)
