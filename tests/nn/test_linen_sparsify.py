"""``sparsejax.nn.linen.sparsify`` against masked dense: every class of layer, transformation and style of module."""

from __future__ import annotations

import functools
import pickle
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import linen as nn
from flax import nnx
from flax.traverse_util import flatten_dict
from jax.sharding import PartitionSpec as P

from sparsejax.nn import LayerReport
from sparsejax.nn.linen import SparseDense, densify, pattern_masks, sparsify
from sparsejax.pattern import SparsityPattern

from .linen_models import Gpt, ViT, kernel_masks, masked

ALWAYS: dict[str, Any] = {"policy": "always", "min_sparsity": 0.0}


class Body(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        return x + nn.Dense(6)(jnp.tanh(nn.Dense(5)(x))), None


class Ladder(nn.Module):
    """Layers stacked along any axis of the parameters."""

    axis: int = 0
    levels: int = 1

    @nn.compact
    def __call__(self, x):
        body = Body
        for _ in range(self.levels):
            body = nn.scan(body, variable_axes={"params": self.axis}, split_rngs={"params": True}, length=2)
        return body()(x, None)[0]


class Ensemble(nn.Module):
    @nn.compact
    def __call__(self, x):
        layer = nn.vmap(nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, axis_size=2)
        shared = nn.vmap(nn.Dense, variable_axes={"params": None}, split_rngs={"params": False})
        return shared(4)(layer(5)(x))


class Prepared(nn.Module):
    """Layers of ``setup`` in a list, one called twice, a method that ``setup`` calls, a rematerialised one."""

    def setup(self):
        self.stem = nn.Dense(6)
        self.layers = [nn.Dense(6), nn.remat(nn.Dense)(6)]
        self._prepare()

    def _prepare(self):
        self.head = nn.Dense(3)

    def encode(self, x):
        return self.stem(jnp.sin(self.stem(x)))

    def __call__(self, x):
        x = self.encode(x)
        for layer in self.layers:
            x = jnp.sin(layer(x))
        return self.head(x)


class Twice(nn.Dense):
    """A subclass that keeps what it inherits."""

    @nn.compact
    def __call__(self, inputs):
        return 2 * super().__call__(inputs)


class Given(nn.Module):
    """A layer of the caller."""

    layer: nn.Module

    @nn.compact
    def __call__(self, x):
        return self.layer(x) + Twice(6)(x)


class Shared(nn.Module):
    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(6)
        return Given(layer)(layer(x))


class Products(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.DenseGeneral((2, 3))(x)
        x = nn.DenseGeneral(6, axis=(-2, -1), use_bias=False)(x)
        x = nn.Einsum((6, 2, 3), "...i,ihd->...hd")(x)
        return nn.Einsum((2, 3, 4), use_bias=False)(x, "...hd,hdo->o...")


class Images(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Conv(
            4,
            (3, 3),
            feature_group_count=2,
            mask=np.broadcast_to(np.tri(3, dtype=bool)[:, :, None, None], (3, 3, 1, 4)),
        )(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.5)(x))
        x = nn.ConvTranspose(4, (2, 2), strides=(2, 2), transpose_kernel=True)(x)
        return nn.Conv(3, (3, 3), strides=None, padding=1)(x)


SEQUENCE = jax.random.normal(jax.random.key(1), (2, 3, 6))
IMAGES = jax.random.normal(jax.random.key(1), (2, 4, 4, 2))
MODELS: dict[str, tuple[Any, Any]] = {
    "dense": (nn.Dense(3, use_bias=False), SEQUENCE),
    "sequential": (nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(3)]), SEQUENCE),
    "products": (Products(), SEQUENCE),
    "attention": (nn.MultiHeadDotProductAttention(2), SEQUENCE),
    "images": (Images(), IMAGES),
    "conv1d": (nn.Conv(3, 2, padding="CAUSAL"), SEQUENCE),
    "setup": (Prepared(), SEQUENCE),
    "remat of the root": (nn.remat(Prepared)(), SEQUENCE),
    "shared": (Shared(), SEQUENCE),
    "scan": (Ladder(), SEQUENCE),
    "scan along axis 1": (Ladder(axis=1), SEQUENCE),
    "scan of scan": (Ladder(levels=2), SEQUENCE),
    "vmap": (Ensemble(), SEQUENCE),
    "lstm": (nn.RNN(nn.LSTMCell(4)), SEQUENCE),
    "vit": (ViT(), jax.random.normal(jax.random.key(1), (2, 8, 8, 3))),
    "gpt": (Gpt(), jnp.arange(10).reshape(2, 5)),
}


@functools.cache
def converted(name: str) -> tuple[Any, Any, Any, Any, Any]:
    """Dense module, its masked variables, masks, sparse module and variables."""
    module, x = MODELS[name]
    variables = jax.jit(module.init)(jax.random.key(0), x)
    masks = kernel_masks(variables["params"], 0.4)
    sparse, values, report = sparsify(module, variables, masks, sample_input=x, **ALWAYS)
    kernels = [row for row in report.rows if row.kind != "BatchNorm"]
    assert all(row.action == "sparse" or row.reason.startswith("held by class") for row in kernels), report
    return module, {**variables, "params": masked(variables["params"], masks)}, masks, sparse, values


def close(got: Any, expected: Any, tolerance: float = 1e-5) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance), got, expected)


def value_and_grad(module: Any, variables: Any, x: Any) -> Any:
    def loss(params: Any, rest: Any) -> Any:
        y = module.apply({**rest, "params": params}, x)
        return jnp.sum(jnp.sin(y)), y

    rest = {name: tree for name, tree in variables.items() if name != "params"}
    return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"], rest)


SLOW = ("sequential", "conv1d", "remat of the root", "lstm", "scan", "scan of scan", "vit", "gpt")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in MODELS])
def test_forward_and_gradients_equal_masked_dense(name: str) -> None:
    module, variables, masks, sparse, values = converted(name)
    x = MODELS[name][1]
    (_, y), grads = value_and_grad(module, variables, x)
    (_, got), sparse_grads = value_and_grad(sparse, values, x)
    close(got, y)
    close(densify(sparse, {**values, "params": sparse_grads})[1]["params"], masked(grads, masks), 1e-4)
    params_alone = {name: tree for name, tree in values.items() if name != "pattern"}
    close(jax.jit(sparse.apply)(params_alone, x), y)


@pytest.mark.parametrize("name", ["images", "scan along axis 1"])
def test_init_draws_the_numbers_of_the_dense_module(name: str) -> None:
    module, _, _, sparse, values = converted(name)
    x = MODELS[name][1]
    y, drawn = jax.jit(sparse.init_with_output)(jax.random.key(0), x)
    assert jax.tree.structure(drawn) == jax.tree.structure(values)
    jax.tree.map(np.testing.assert_array_equal, drawn, values)
    close(y, sparse.apply(values, x))
    dense, back = densify(sparse, drawn)
    assert dense == module and type(dense) is type(module)
    expected = flatten_dict(jax.jit(module.init)(jax.random.key(0), x)["params"], sep="/")
    for path, keep in pattern_masks(sparse, drawn).items():
        expected[f"{path}/kernel"] *= keep
    jax.tree.map(np.testing.assert_array_equal, flatten_dict(back["params"], sep="/"), expected)


@pytest.mark.parametrize("name", ["products", "images"])
def test_vmap_and_shard_map(name: str) -> None:
    module, variables, _, sparse, values = converted(name)
    x = MODELS[name][1]
    run = jax.jit(jax.vmap(lambda part: sparse.apply(values, part[None])))
    close(run(x), jax.jit(jax.vmap(lambda part: module.apply(variables, part[None])))(x))
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    shard = jax.shard_map(sparse.apply, mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data"), check_vma=False)
    if name != "products":  # its result has the batch on another axis
        close(jax.jit(shard)(values, x), jax.jit(module.apply)(variables, x))


@pytest.mark.parametrize("name", ["products", "images"])
def test_bfloat16(name: str) -> None:
    module, variables, _, sparse, values = converted(name)
    narrow = functools.partial(
        jax.tree.map, lambda leaf: leaf.astype(jnp.bfloat16) if leaf.dtype == "float32" else leaf
    )
    x = narrow(MODELS[name][1])
    y = jax.jit(module.apply)(narrow(variables), x)
    got = jax.jit(sparse.apply)(narrow(values), x)
    assert got.dtype == y.dtype
    close(got.astype(jnp.float32), y.astype(jnp.float32), 0.1)


def test_dropout_draws_what_the_dense_module_draws_and_statistics_move_alike() -> None:
    module, variables, _, sparse, values = converted("vit")
    x, rngs = MODELS["vit"][1], {"dropout": jax.random.key(3)}
    runs = (jax.jit(lambda v, m=m: m.apply(v, x, train=True, rngs=rngs)) for m in (sparse, module))
    close(next(runs)(values), next(runs)(variables))
    module, variables, _, sparse, values = converted("images")
    runs = (jax.jit(lambda v, m=m: m.apply(v, IMAGES, True, mutable=["batch_stats"])) for m in (sparse, module))
    close(next(runs)(values), next(runs)(variables))


def test_other_methods_bind_submodules_and_tables() -> None:
    module, variables, _, sparse, values = converted("setup")
    y = module.apply(variables, SEQUENCE, method="encode")
    close(sparse.apply(values, SEQUENCE, method="encode"), y)
    close(sparse.apply(values, SEQUENCE, method=type(sparse).encode), y)
    close(sparse.apply(values, SEQUENCE, method=type(module).encode), y)
    close(sparse.apply(values, SEQUENCE, method=lambda m, x: m.encode(x)), y)
    inner = lambda m, x: m.layers[0](m.stem(x))  # noqa: E731
    close(sparse.apply(values, SEQUENCE, method=inner), module.apply(variables, SEQUENCE, method=inner))
    close(sparse.bind(values).encode(SEQUENCE), y)
    assert "SparsePrepared" in sparse.tabulate(jax.random.key(0), SEQUENCE)
    state = sparse.apply(values, SEQUENCE, capture_intermediates=True)[1]["intermediates"]
    assert state["head"]["__call__"][0].shape == (2, 3, 3)


def test_a_sparse_module_is_a_submodule_of_another_one() -> None:
    module, variables, _, sparse, values = converted("shared")

    class Outer(nn.Module):
        backbone: nn.Module

        @nn.compact
        def __call__(self, x):
            return self.backbone(x) + 1

    nested = {name: {"backbone": tree} for name, tree in values.items()}
    close(Outer(sparse).apply(nested, SEQUENCE), module.apply(variables, SEQUENCE) + 1)
    close(Outer(sparse).apply({"params": nested["params"]}, SEQUENCE), module.apply(variables, SEQUENCE) + 1)


def test_pickles_copies_and_checkpoints(tmp_path) -> None:
    _, _, _, sparse, values = converted("scan")
    again = pickle.loads(pickle.dumps(sparse))
    assert again == sparse and hash(again) == hash(sparse) and isinstance(again, Ladder)
    assert sparse.clone(axis=0) == sparse
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "orbax", values)
        checkpointer.wait_until_finished()
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, values)
        close(again.apply(checkpointer.restore(tmp_path / "orbax", shapes), SEQUENCE), sparse.apply(values, SEQUENCE))
    raw = flax.serialization.to_bytes(values)
    restored = flax.serialization.from_bytes(jax.tree.map(jnp.zeros_like, values), raw)
    close(again.apply(restored, SEQUENCE), sparse.apply(values, SEQUENCE))


def test_a_pattern_of_equal_capacity_needs_no_new_program() -> None:
    module, x = nn.Dense(4), jnp.ones((2, 4))
    variables = module.init(jax.random.key(0), x)
    mask = np.eye(4, dtype=bool)
    sparse, values, _ = sparsify(module, variables, {"": mask}, sample_input=x, **ALWAYS)
    _, others, _ = sparsify(module, variables, {"": mask[::-1]}, sample_input=x, **ALWAYS)
    run = jax.jit(sparse.apply)
    for each, keep in ((values, mask), (others, mask[::-1])):
        params = variables["params"]
        close(run(each, x), x @ (params["kernel"] * keep) + params["bias"])
    assert run._cache_size() == 1
    assert pattern_masks(sparse, others)[""].tolist() == mask[::-1].tolist()
    assert pattern_masks(sparse)[""].tolist() == mask.tolist()


def test_nothing_is_shared_with_the_dense_variables() -> None:
    module, variables, masks, _, _ = converted("images")
    _, values, _ = sparsify(module, variables, masks, sample_input=IMAGES, **ALWAYS)
    jax.tree.map(lambda leaf: leaf.delete(), values)
    module.apply(variables, IMAGES)


class Odd(nn.Module):
    """What stays dense, each for another reason."""

    @nn.compact
    def __call__(self, x, unused: bool = False):
        x = nn.SpectralNorm(nn.Dense(6, name="spectral"))(x, update_stats=False)
        x = nn.Dense(6, name="hook", dot_general=jax.lax.dot_general)(x)
        x = nn.Dense(6, name="boxed", kernel_init=nn.with_partitioning(nn.initializers.normal(), (None, "model")))(x)
        x = nn.ConvLocal(6, (1,), name="local")(x)
        x = x @ self.param("raw", nn.initializers.normal(), (6, 6))
        tied = nn.Dense(6, name="tied")
        x = tied(x) @ tied.variables["params"]["kernel"].T
        x = nn.DenseGeneral(6, name="batch", batch_dims=(0,))(x)
        if unused or self.is_initializing():
            x = nn.Dense(6, name="unused")(x)
        x = x + nn.Dense(6, name="initial")(x)
        return nn.Dense(6, name="fine")(x) + nn.Embed(4, 6, name="table")(jnp.zeros(3, int))


def test_what_stays_dense_has_a_row_that_says_why() -> None:
    variables = Odd().init(jax.random.key(0), SEQUENCE)
    zeros = jax.tree.map(lambda leaf: leaf * (jnp.arange(leaf.size).reshape(leaf.shape) % 3 == 0), variables["params"])
    zeros["initial"]["kernel"] *= 0
    given = {**variables, "params": zeros}
    sparse, values, report = sparsify(Odd(), given, sample_input=SEQUENCE, policy="always", min_sparsity=0.5)
    rows: dict[str, LayerReport] = {row.path: row for row in report.rows}
    reasons = {
        "spectral": "changed by SpectralNorm",
        "hook": "dot_general has value",
        "boxed": "kernel in a Partitioned",
        "local/kernel": "held by class ConvLocal",
        "raw": "held by class Odd",
        "tied": "cannot run with it sparse: TypeError",
        "batch": "batch_dims has value",
        "initial": "all zeros and no mask",
        "unused/kernel": "not called by the module on sample_input",
        "table/embedding": "an embedding",
    }
    for path, reason in reasons.items():
        assert rows[path].action == "dense" and reason in rows[path].reason, rows[path]
    assert [path for path, row in rows.items() if row.action == "sparse"] == ["fine"]
    assert set(rows) == {*reasons, "fine"}
    close(sparse.apply(values, SEQUENCE), Odd().apply(given, SEQUENCE))


def test_layers_that_are_sparse_already_and_rules() -> None:
    module = nn.Sequential([SparseDense(6, pattern=SparsityPattern.from_mask(np.eye(6, dtype=bool))), nn.Dense(6)])
    variables = module.init(jax.random.key(0), SEQUENCE)
    masks = {"layers_1": np.eye(6, dtype=bool)}
    sparse, values, report = sparsify(module, variables, masks, sample_input=SEQUENCE, policy="rule")
    assert {row.path: row.reason.split(":")[0] for row in report.rows} == {
        "layers_0": "sparse already",
        "layers_1": "rule",
    }
    sparse, values, report = sparsify(module, variables, masks, sample_input=SEQUENCE, policy="always")
    assert [row.action for row in report.rows] == ["sparse", "sparse"]
    close(sparse.apply(values, SEQUENCE), sparse.apply({"params": values["params"]}, SEQUENCE))
    sparse, values, report = sparsify(module, variables, masks, sample_input=SEQUENCE)
    assert (report.speedup is None) == (report.rows[0].action == "dense")
    assert report.rows[0].dense_ms is not None and densify(sparse, values)[0] == module


def test_a_batch_norm_has_a_row_and_the_whole_module_is_timed_with_its_options() -> None:
    class Normed(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.Dropout(0.5, deterministic=not train)(nn.Dense(6)(x))
            return nn.BatchNorm(use_running_average=not train)(x)

    variables = Normed().init(jax.random.key(0), SEQUENCE, False)
    masks = {"Dense_0": np.eye(6, dtype=bool)}
    sample = {"x": jax.ShapeDtypeStruct(SEQUENCE.shape, SEQUENCE.dtype), "train": True}
    _, _, report = sparsify(Normed(), variables, masks, sample_input=sample, min_sparsity=0.5)
    assert [(row.path, row.shape) for row in report.rows] == [("Dense_0", (6, 6)), ("BatchNorm_0", (6,))]
    assert report.rows[1].action == "dense" and "only NNX models get the fused one" in report.rows[1].reason
    if report.rows[0].action == "sparse":
        assert report.speedup is not None and not report.predicted


def test_frozen_variables_stay_frozen() -> None:
    module = nn.Dense(6)
    variables = nn.FrozenDict(module.init(jax.random.key(0), SEQUENCE))
    sparse, values, _ = sparsify(module, variables, sample_input=SEQUENCE, **ALWAYS)
    assert isinstance(values, nn.FrozenDict) and isinstance(densify(sparse, values)[1], nn.FrozenDict)
    close(sparse.apply(values, SEQUENCE), module.apply(variables, SEQUENCE))


def test_bad_input_is_named() -> None:
    module, x = nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(3)]), jnp.ones((2, 4))
    variables = module.init(jax.random.key(0), x)

    def convert(module: Any, variables: Any, masks: Any = None, sample_input: Any = x, **options: Any) -> Any:
        return sparsify(module, variables, masks, sample_input=sample_input, **{**ALWAYS, **options})

    for model, text in [
        (nnx.Linear(2, 2, rngs=nnx.Rngs(0)), r"type Linear; .*call sparsejax\.nn\.sparsify\(model"),
        (nn.Dense, "Pass an instance"),
        (variables, "The module comes first"),
        (module.bind(variables), "unbound"),
        (None, "type NoneType"),
    ]:
        with pytest.raises(TypeError, match=text):
            convert(model, variables)
    with pytest.raises(TypeError, match="variables has type Dense"):
        convert(module, module.layers[0])
    with pytest.raises(ValueError, match=r"variables has collections 'layers_0', 'layers_2'; .*\"params\": params"):
        convert(module, variables["params"])
    with pytest.raises(ValueError, match=r"masks has path 'layers_3'; .*Did you mean 'layers_"):
        convert(module, variables, {"layers_3": np.ones((4, 4), bool)})
    with pytest.raises(ValueError, match=r"skip has path 'layer_0'; .*Did you mean 'layers_0'"):
        convert(module, variables, skip=["layer_0"])
    with pytest.raises(ValueError, match=r"layer 'layers_0': mask has shape \(4, 3\); expected shape \(4, 4\)"):
        convert(module, variables, {"layers_0": np.ones((4, 3), bool)})
    with pytest.raises(ValueError, match=r"sample_input has float32\[2, 5\]; .*Sequential can be called with"):
        convert(module, variables, sample_input=jnp.ones((2, 5)))
    with pytest.raises(ValueError, match="min_sparsity has value 2"):
        convert(module, variables, min_sparsity=2)
    sparse, values, _ = convert(module, variables)
    with pytest.raises(ValueError, match="sparse layers already"):
        convert(sparse, values)
    with pytest.raises(ValueError, match=r"parameter 'layers_0/kernel' has shape \(4, 4\); expected shape \(16,\)"):
        sparse.apply(variables, x)
    for function in (pattern_masks, lambda model: densify(model, variables)):
        with pytest.raises(TypeError, match=r"expected a module that sparsejax\.nn\.linen\.sparsify made"):
            function(module)
