"""Whole models as Flax's documentation writes them: what becomes sparse, and what the report says of the rest."""

from __future__ import annotations

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsejax as sx
from sparsejax import nn, pruning


class Block(nnx.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.norm1, self.norm2 = nnx.LayerNorm(width, rngs=rngs), nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, width, width, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(width, 2 * width, rngs=rngs), nnx.Linear(2 * width, width, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.down(nnx.gelu(self.up(self.norm2(x))))


class GPT(nnx.Module):
    """A decoder with learned positions."""

    def __init__(self, rngs: nnx.Rngs, *, vocabulary: int = 11, width: int = 16, depth: int = 2) -> None:
        self.tokens = nnx.Embed(vocabulary, width, rngs=rngs)
        self.positions = nnx.Param(jax.random.normal(rngs.params(), (8, width)) * 0.02)
        self.blocks = nnx.List([Block(width, rngs) for _ in range(depth)])
        self.norm, self.head = nnx.LayerNorm(width, rngs=rngs), nnx.Linear(width, vocabulary, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = self.tokens(tokens) + self.positions[...][: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, nnx.make_causal_mask(tokens))
        return self.head(self.norm(x))


def inner_kernels(path: str, leaf: Any) -> bool:
    return path.endswith("kernel") and not path.startswith("head")


def pruned_gpt(sparsity: float = 0.9) -> tuple[Any, Any, Any]:
    """A model after one step that prunes all kernels but the head, its optimizer and the tokens."""
    model = GPT(nnx.Rngs(0))
    tx = pruning.pruned(optax.adam(1e-2), pruning.one_shot(sparsity, scope="layer"), where=inner_kernels)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    tokens = jax.random.randint(jax.random.key(0), (3, 8), 0, 11)
    optimizer.update(model, nnx.grad(next_token_loss)(model, tokens))
    return model, optimizer, tokens


def next_token_loss(model: Any, tokens: jax.Array) -> jax.Array:
    logits = model(tokens)[:, :-1]
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()


def test_every_pruned_kernel_of_a_transformer_runs_sparse() -> None:
    model, optimizer, _ = pruned_gpt()
    sparse, report = sx.sparsify(model, pruning.get_mask(optimizer.opt_state), policy="always")
    actions = {row.path: row.action for row in report.rows}
    layers = ("attention/query", "attention/key", "attention/value", "attention/out", "up", "down")
    assert [actions[f"blocks/{i}/{name}"] for i in range(2) for name in layers] == ["sparse"] * 12
    assert actions["head"] == "dense"
    assert report.sparse_share == 1.0
    assert str(report).splitlines()[-1].startswith("100 % of the weights in pruned layers run sparse; ")
    assert isinstance(sparse.blocks[0].attention.query, nn.SparseLinearGeneral)


def test_losses_are_those_of_the_masked_dense_model() -> None:
    model, optimizer, tokens = pruned_gpt()
    masks = pruning.get_mask(optimizer.opt_state)
    sparse, _ = sx.sparsify(model, masks, policy="always")
    fixed = pruning.pruned(optax.adam(1e-2), pruning.fixed(masks), where=inner_kernels)
    losses: list[list[float]] = []
    for network, tx in ((model, fixed), (sparse, optax.adam(1e-2))):
        state = nnx.Optimizer(network, tx, wrt=nnx.Param)

        @nnx.jit
        def step(network: Any, state: Any) -> jax.Array:
            loss, grads = nnx.value_and_grad(next_token_loss)(network, tokens)
            state.update(network, grads)
            return loss

        losses.append([float(step(network, state)) for _ in range(20)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4, atol=1e-4)


def test_there_and_back_with_the_optimizer() -> None:
    model, optimizer, tokens = pruned_gpt()
    sparse, _ = sx.sparsify(model, pruning.get_mask(optimizer.opt_state), policy="always")
    plain = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    plain.update(model, nnx.grad(next_token_loss)(model, tokens))
    sparse, _ = sx.sparsify(model, nn.pattern_masks(sparse), policy="always")
    carried = nn.carry_optimizer(plain, model, sparse)
    query = sparse.blocks[0].attention.query
    moment = carried.opt_state[0].mu["blocks"][0]["attention"]["query"]["kernel"]
    dense_moment = plain.opt_state[0].mu["blocks"][0]["attention"]["query"]["kernel"]
    np.testing.assert_array_equal(moment[...], query.gather(dense_moment[...]))
    back = nn.carry_optimizer(carried, sparse, sx.densify(sparse))
    again = back.opt_state[0].mu["blocks"][0]["attention"]["query"]["kernel"]
    np.testing.assert_array_equal(again[...], np.where(query.stored_mask(), dense_moment[...], 0))


class Stacked(nnx.Module):
    """Blocks stacked by ``nnx.vmap`` and run by ``nnx.scan``."""

    def __init__(self, depth: int, width: int) -> None:
        @nnx.split_rngs(splits=depth)
        @nnx.vmap(axis_size=depth)
        def build(rngs: nnx.Rngs) -> nnx.Linear:
            return nnx.Linear(width, width, rngs=rngs)

        self.layers = build(nnx.Rngs(0))

    def __call__(self, x: jax.Array) -> jax.Array:
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def run(x: jax.Array, layer: Any) -> jax.Array:
            return nnx.remat(lambda layer, x: jnp.tanh(layer(x)))(layer, x)

        return run(x, self.layers)


def test_layers_stacked_by_vmap_and_run_by_scan() -> None:
    model, x = Stacked(3, 8), jax.random.normal(jax.random.key(1), (4, 8))
    mask = np.random.default_rng(0).random((3, 8, 8)) < [[[0.1]], [[0.3]], [[0.2]]]
    sparse, report = sx.sparsify(model, {"layers": mask}, min_sparsity=0.5, policy="measured", sample_input=x)
    assert report.rows[0].dense_ms is not None
    sparse, report = sx.sparsify(model, {"layers": mask}, min_sparsity=0.5, policy="always")
    assert report.rows[0].action == "sparse" and report.rows[0].shape == (3, 8, 8)
    assert sparse.layers.kernel.shape == (3, mask.sum((1, 2)).max())
    masked = nnx.clone(model)
    masked.layers.kernel.set_value(masked.layers.kernel[...] * mask)
    np.testing.assert_allclose(sparse(x), masked(x), rtol=1e-5, atol=1e-5)
    got, expected = (nnx.jit(nnx.grad(lambda m: (m(x) ** 2).sum()))(m) for m in (sparse, masked))
    np.testing.assert_allclose(got["layers"]["bias"][...], expected["layers"]["bias"][...], rtol=1e-4, atol=1e-5)
    dense = sx.densify(sparse)
    np.testing.assert_array_equal(dense.layers.kernel[...], masked.layers.kernel[...])
    np.testing.assert_array_equal(nn.pattern_masks(sparse)["layers"], mask)


class TiedDecoder(nnx.Module):
    """A recurrent network whose embedding is also its output layer."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.tokens, self.rnn = nnx.Embed(7, 4, rngs=rngs), nnx.RNN(nnx.GRUCell(4, 4, rngs=rngs))

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return self.tokens.attend(self.rnn(self.tokens(tokens)))


def test_recurrent_cells_run_sparse_and_a_tied_embedding_says_why_not() -> None:
    model, rng = TiedDecoder(), np.random.default_rng(0)
    masks = {path: rng.random(kernel.shape) < 0.3 for path, kernel in nn.dense_kernels(model).items()}
    masks["tokens/embedding"] = rng.random((7, 4)) < 0.3
    sparse, report = sx.sparsify(model, masks, min_sparsity=0.5, policy="always")
    rows = {row.path: row for row in report.rows}
    assert {rows[f"rnn/cell/dense_{name}"].action for name in "ih"} == {"sparse"}
    assert rows["tokens/embedding"].action == "dense" and "tied to the output layer" in rows["tokens/embedding"].reason
    tokens, dense = jnp.array([[1, 2, 3]]), sx.densify(sparse)
    np.testing.assert_allclose(sparse(tokens), dense(tokens), rtol=1e-5, atol=1e-6)
    got, expected = (nnx.grad(lambda m: (m(tokens) ** 2).sum())(m) for m in (sparse, dense))
    layer, of_cell = (
        sparse.rnn.cell.dense_h,
        [grads["rnn"]["cell"]["dense_h"]["kernel"][...] for grads in (got, expected)],
    )
    np.testing.assert_allclose(of_cell[0], layer.gather(of_cell[1]), rtol=1e-4, atol=1e-6)
    assert "nothing was timed" in report.summary() and report.speedup is None


def test_parameters_of_unknown_classes_have_rows_with_the_reason() -> None:
    class Own(nnx.Module):
        def __init__(self) -> None:
            self.weight = nnx.Param(jnp.eye(8))
            self.scale = nnx.Param(jnp.ones(8))

        def __call__(self, x: jax.Array) -> jax.Array:
            return x @ self.weight[...] * self.scale[...]

    class Model(nnx.Module):
        def __init__(self) -> None:
            self.own, self.embed = Own(), nnx.Embed(3, 8, rngs=nnx.Rngs(0))

    masks = {"own/scale": np.ones(8, bool), "embed/embedding": np.zeros((3, 8), bool)}
    _, report = sx.sparsify(Model(), masks, policy="always")
    reasons = {row.path: (row.action, row.reason) for row in report.rows}
    assert reasons["own/weight"] == (
        "dense",
        "held by class Own, which sparsify does not know; register_sparse adds a class",
    )
    assert "a bias or a scale" in reasons["own/scale"][1] and "an embedding" in reasons["embed/embedding"][1]
    assert "WARNING: most of what is pruned stays dense" in str(report)
    with pytest.raises(ValueError, match=r"masks has path 'own/wieght'.* Did you mean 'own/weight'\?"):
        sx.sparsify(Model(), {"own/wieght": np.ones((8, 8), bool)}, policy="always")


def test_a_kernel_of_initial_zeros_stays_dense() -> None:
    """Nothing would be stored of it, and nothing could be learnt; a mask says what is to be stored."""
    head = nnx.Linear(4, 3, kernel_init=nnx.initializers.zeros, rngs=nnx.Rngs(0))
    same, report = sx.sparsify(head, policy="always")
    assert type(same) is nnx.Linear
    assert "all zeros and no mask" in report.rows[0].reason
    stored, _ = sx.sparsify(head, {"": np.eye(4, 3, dtype=bool)}, policy="always", min_sparsity=0.5)
    assert stored.kernel.shape == (3,)


def test_a_subclass_stays_dense_until_it_is_registered() -> None:
    class Doubled(nnx.Linear):
        def __call__(self, x: jax.Array, out_sharding: Any = None) -> jax.Array:
            return 2 * super().__call__(x)

    class SparseDoubled(nn.SparseLinear):
        dense_class = Doubled

        def __call__(self, x: jax.Array, out_sharding: Any = None) -> jax.Array:
            return 2 * super().__call__(x)

    model, mask = Doubled(6, 6, rngs=nnx.Rngs(0)), np.eye(6, dtype=bool)
    _, report = sx.sparsify(model, {"": mask}, policy="always")
    assert report.rows[0].reason == "a subclass; what it adds would be lost. register_sparse converts it"
    nn.register_sparse(Doubled, SparseDoubled.from_dense)
    sparse, report = sx.sparsify(model, {"": mask}, policy="always")
    x = jnp.ones((2, 6))
    np.testing.assert_allclose(sparse(x), 2 * (x @ (model.kernel[...] * mask)), rtol=1e-6)
    with pytest.raises(TypeError, match=r"register_sparse: dense_class has 3; expected a subclass of nnx\.Module"):
        nn.register_sparse(3, SparseDoubled.from_dense)  # type: ignore[arg-type]


@st.composite
def module_trees(draw: st.DrawFn, depth: int = 2) -> nnx.Module:
    """Random nests of modules, with some zeros in every matrix."""
    rngs = nnx.Rngs(0)
    kinds = [
        lambda: nnx.Linear(2, 3, rngs=rngs),
        lambda: nnx.LinearGeneral(2, (1, 3), rngs=rngs),
        lambda: nnx.Conv(2, 3, (2,), rngs=rngs),
        lambda: nnx.ConvTranspose(2, 3, (2, 1), rngs=rngs),
        lambda: nnx.Embed(2, 3, rngs=rngs),
        lambda: nnx.LSTMCell(2, 3, rngs=rngs),
        lambda: nnx.Conv(2, 3, (1, 1, 1), rngs=rngs),
    ]
    if depth:
        kinds.append(lambda: nnx.List(draw(st.lists(module_trees(depth - 1), min_size=1, max_size=3))))
    return draw(st.sampled_from(kinds))()


@settings(max_examples=12, deadline=None, derandomize=True)
@given(module_trees())
def test_every_matrix_with_zeros_and_every_mask_has_a_row(model: nnx.Module) -> None:
    holder = nnx.List([model, nnx.LinearGeneral(2, (1, 3), rngs=nnx.Rngs(0))])  # the latter's bias has two axes
    matrices: dict[str, int] = {}  # rows expected without masks, and the sizes of what they describe
    masks: dict[str, np.ndarray] = {}
    for path, variable in nnx.iter_graph(holder, graph=True):
        if isinstance(variable, nnx.Param):
            value = np.ones(variable.shape, np.float32)
            value[(0,) * value.ndim] = 0
            variable.set_value(jnp.asarray(value))
            name = "/".join(map(str, path)).removesuffix("/kernel")
            masks[name] = value != 0
            if path[-1] != "bias" and value.ndim > 1:  # a bias of several axes is no matrix
                matrices[name] = value.size
    _, report = sx.sparsify(holder, min_sparsity=0.0, policy="always")
    assert {row.path: row.sparsity for row in report.rows} == pytest.approx({k: 1 / n for k, n in matrices.items()})
    assert all(row.reason for row in report.rows)
    dense = [row for row in report.rows if row.action == "dense"]
    assert all(row.kind == "Embed" or len(row.shape) == 5 for row in dense)
    _, report = sx.sparsify(holder, masks, min_sparsity=0.0, policy="always")
    assert {row.path for row in report.rows} == set(masks)


def test_neither_model_loses_its_arrays_when_the_other_is_donated() -> None:
    for donate_old in (True, False):
        model = nnx.Sequential(nnx.Linear(4, 4, rngs=nnx.Rngs(0)), nnx.BatchNorm(4, rngs=nnx.Rngs(0)))
        sparse, _ = sx.sparsify(model, {"layers/0": np.eye(4, dtype=bool)}, min_sparsity=0.5, policy="always")
        dense = sx.densify(sparse)
        donated, kept = (model, [sparse]) if donate_old else (sparse, [model, dense])
        jax.block_until_ready(jax.jit(lambda s: jax.tree.map(lambda a: a + 1, s), donate_argnums=0)(nnx.state(donated)))
        for other in kept:
            other.eval()
            assert np.isfinite(other(jnp.ones((2, 4)))).all()


def test_an_abstract_model_is_sparsified_by_its_masks() -> None:
    masks, rows = {"layers/0": np.eye(4, dtype=bool)}, {}

    def build(masks: dict[str, np.ndarray] | None) -> nnx.Module:
        layers = [nnx.Linear(4, 4, rngs=nnx.Rngs(seed)) for seed in range(2)]
        sparse, report = sx.sparsify(nnx.Sequential(*layers), masks, min_sparsity=0.5, policy="always")
        rows.update({row.path: row for row in report.rows})
        assert str(report)
        return sparse

    abstract: Any = nnx.eval_shape(lambda: build(masks))
    assert [layer.kernel.shape for layer in abstract.layers] == [(4,), (4, 4)]
    assert rows["layers/1"].reason == "no mask, and zeros are not known inside a trace"
    with pytest.raises(ValueError, match="masks has no value for a model inside a trace; expected a mask for each"):
        nnx.eval_shape(lambda: build(None))


def test_a_sparse_model_and_its_optimizer_can_be_pickled() -> None:
    model = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    sparse, _ = sx.sparsify(model, {"": np.eye(4, dtype=bool)}, min_sparsity=0.5, policy="always")
    optimizer = nnx.Optimizer(sparse, optax.adam(1e-3), wrt=nnx.Param)
    again, moments = pickle.loads(pickle.dumps((sparse, nnx.state(optimizer))))
    np.testing.assert_array_equal(again(jnp.ones((1, 4))), sparse(jnp.ones((1, 4))))
    assert jax.tree.structure(moments) == jax.tree.structure(nnx.state(optimizer))
