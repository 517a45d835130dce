"""``sparsify`` and ``densify`` on whole models."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import sparsejax
from sparsejax import densify, sparsify
from sparsejax.nn import BatchNorm, SparseConv, SparseLinear, pattern_masks


def always(model: Any, masks: Any = None, **options: Any):
    return sparsify(model, masks, policy="always", **options)


def rows(report):
    return {row.path: row for row in report.rows}


def state_of(model):
    return nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState)))


def assert_same_state(a, b):
    flat_a, flat_b = (nnx.traversals.flatten_mapping(state_of(m)) for m in (a, b))
    assert flat_a.keys() == flat_b.keys()
    for path, value in flat_a.items():
        jax.tree.map(np.testing.assert_array_equal, value, flat_b[path])


@pytest.mark.parametrize("give_masks", [True, False])
def test_the_network_means_the_same(net, images, give_masks):
    model, masks = net
    sparse, report = always(model, masks if give_masks else None)
    assert {path for path, row in rows(report).items() if row.action == "sparse"} == set(masks)
    assert {path for path, row in rows(report).items() if row.action == "dense"} == {"stem", "fc"}
    assert "sparsity below 0.8" in rows(report)["fc"].reason
    for mode in ("eval", "train"):
        getattr(model, mode)()
        getattr(sparse, mode)()
        model.dropout.deterministic = sparse.dropout.deterministic = True
        np.testing.assert_allclose(sparse(images), model(images), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sparse.blocks[1].bn2.mean[...], model.blocks[1].bn2.mean[...], atol=1e-5)


def test_the_model_is_untouched_and_shares_nothing(net, images):
    model, masks = net
    before = {path: np.array(v) for path, v in nnx.traversals.flatten_mapping(state_of(model)).items()}
    streams = nnx.to_pure_dict(nnx.state(model, nnx.RngCount))
    sparse, _ = always(model, masks)
    sparse.train()
    sparse(images)
    sparse.fc.bias[...] = sparse.fc.bias[...] + 1
    for path, value in nnx.traversals.flatten_mapping(state_of(model)).items():
        np.testing.assert_array_equal(value, before[path])
    assert nnx.to_pure_dict(nnx.state(model, nnx.RngCount)) == streams
    assert type(model.blocks[0].conv1) is nnx.Conv
    assert type(model.blocks[0].bn1) is nnx.BatchNorm


def test_containers_and_shared_modules(net):
    sparse, _ = always(*net)
    assert sparse.repeat is sparse.blocks[0]
    assert type(sparse.repeat.conv1) is SparseConv
    assert isinstance(sparse.blocks, nnx.List)
    assert type(sparse.heads["a"]) is SparseLinear
    assert type(sparse.tail) is tuple
    assert type(sparse.tail[0]) is SparseLinear
    dense = densify(sparse)
    assert dense.repeat is dense.blocks[0]
    assert type(dense.tail[0]) is nnx.Linear


def test_a_layer_used_twice_stays_one_layer():
    class Twice(nnx.Module):
        def __init__(self):
            self.a = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
            self.b = nnx.List([self.a])
            self.parent = nnx.Dict(c=self.a)

    sparse, report = always(Twice(), {"a": np.eye(4, dtype=bool)}, min_sparsity=0.5)
    assert type(sparse.a) is SparseLinear
    assert sparse.a is sparse.b[0] is sparse.parent["c"]
    assert len(report.rows) == 1


def test_a_module_that_points_back_at_its_parent():
    class Child(nnx.Module):
        def __init__(self, parent):
            self.parent = parent
            self.linear = nnx.Linear(4, 4, rngs=nnx.Rngs(0))

    class Parent(nnx.Module):
        def __init__(self):
            self.child = Child(self)

    sparse, _ = always(Parent(), {"child/linear": np.eye(4, dtype=bool)}, min_sparsity=0.5)
    assert type(sparse.child.linear) is SparseLinear
    assert sparse.child.parent is sparse


def test_the_model_may_be_a_single_layer_or_a_sequential():
    linear = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    sparse, report = always(linear, {"": np.eye(4, dtype=bool)}, min_sparsity=0.5)
    assert type(sparse) is SparseLinear
    assert str(report).splitlines()[1].startswith("(root)")
    assert type(densify(sparse)) is nnx.Linear
    stack = nnx.Sequential(linear, nnx.relu, nnx.Linear(4, 2, rngs=nnx.Rngs(1)))
    sparse, _ = always(stack, {"layers/0": np.eye(4, dtype=bool)}, min_sparsity=0.5)
    assert type(sparse.layers[0]) is SparseLinear
    assert sparse(jnp.ones((1, 4))).shape == (1, 2)


def test_batch_norms_are_swapped_with_variables_and_flags(net):
    model, masks = net
    model.blocks[0].bn1.use_running_average = True
    sparse, report = always(model, masks)
    norm = sparse.blocks[0].bn1
    assert type(norm) is BatchNorm
    assert norm.use_running_average is True
    assert sparse.blocks[0].bn2.use_running_average is False
    assert sparse.blocks[1].bn2.momentum == 0.9
    assert rows(report)["blocks/0/bn1"].action == "swapped"
    back = densify(sparse)
    assert type(back.blocks[0].bn1) is nnx.BatchNorm
    assert back.blocks[0].bn1.use_running_average is True
    untouched, report = always(nnx.Sequential(nnx.BatchNorm(3, rngs=nnx.Rngs(0))))
    assert type(untouched.layers[0]) is nnx.BatchNorm
    assert report.rows == ()


def test_eval_mode_survives(net):
    model, masks = net
    model.eval()
    sparse, _ = always(model, masks)
    assert sparse.dropout.deterministic is True
    assert sparse.blocks[0].bn1.use_running_average is True


def test_densify_restores_kernels_options_and_types(net, images):
    model, masks = net
    back = densify(always(model, masks)[0])
    assert_same_state(back, model)
    assert {type(node) for _, node in nnx.iter_modules(back)} == {type(node) for _, node in nnx.iter_modules(model)}
    assert back.blocks[0].conv1.use_bias is False
    model.eval()
    back.eval()
    np.testing.assert_allclose(back(images), model(images), rtol=1e-5, atol=1e-6)


def test_a_stored_zero_survives_the_round_trip(net):
    """SparseProp drops a stored weight that becomes exactly 0."""
    sparse, _ = always(*net)
    layer = sparse.blocks[0].conv1
    layer.kernel[...] = layer.kernel[...].at[0].set(0.0)
    kept = pattern_masks(sparse)
    assert kept.keys() == net[1].keys()
    again, _ = always(densify(sparse), kept)
    assert again.blocks[0].conv1.pattern.nse == layer.pattern.nse
    assert_same_state(again, sparse)
    lossy, _ = always(densify(sparse))
    assert lossy.blocks[0].conv1.pattern.nse == layer.pattern.nse - 1


def test_sparse_layers_already_there_are_left_alone(net):
    sparse, _ = always(*net)
    again, report = always(sparse)
    assert rows(report)["heads/a"].reason == "sparse already"
    assert rows(report)["heads/a"].action == "sparse"
    assert_same_state(again, sparse)


class Scaled(nnx.Linear):
    def __call__(self, inputs):
        return 2 * super().__call__(inputs)


def test_what_cannot_be_replaced_is_reported():
    class Odd(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.subclass = Scaled(4, 4, rngs=rngs)
            self.volume = nnx.Conv(4, 4, (1, 1, 1), rngs=rngs)
            self.reflect = nnx.Conv(4, 4, (3, 3), padding="REFLECT", rngs=rngs)
            self.tied = nnx.Linear(4, 4, use_bias=False, rngs=rngs)
            self.other = nnx.Linear(4, 4, use_bias=False, rngs=rngs)
            self.other.kernel = self.tied.kernel
            self.half = nnx.Linear(4, 4, dtype=jnp.float16, rngs=rngs)

    sparse, report = always(Odd(), min_sparsity=0.0)
    found = rows(report)
    expected = {
        "subclass": "a subclass",
        "volume": "kernel_size has 3 axes",
        "reflect": "padding has value 'REFLECT'",
        "tied": "shares a variable with other/kernel",
        "other": "shares a variable with tied/kernel",
        "half": "dtype has value float16",
    }
    assert found.keys() == expected.keys()
    for path, reason in expected.items():
        assert found[path].action == "dense"
        assert reason in found[path].reason, path
    assert sparse.tied.kernel is sparse.other.kernel


def test_skip_names_layers_and_whole_modules(net):
    model, masks = net
    _, report = always(model, masks, skip=("blocks/0", "tail/0"))
    skipped = {path for path, row in rows(report).items() if row.reason == "named in skip"}
    assert skipped == {"blocks/0/conv1", "blocks/0/conv2", "tail/0"}


def test_masks_as_a_tree_like_the_state(net):
    model, masks = net
    tree = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    expected = always(model, masks)[0]

    def fill(node, path):
        if isinstance(node, dict):
            return {key: fill(child, (*path, str(key))) for key, child in node.items()}
        layer = "/".join(path[:-1])
        return masks[layer] if path[-1] == "kernel" and layer in masks else optax.MaskedNode()

    nested = fill(tree, ())
    assert_same_state(always(model, nested)[0], expected)
    state = nnx.State(nested)
    assert_same_state(always(model, state)[0], expected)


def test_masks_of_a_pruning_optimizer_are_taken_as_they_come(net, images):
    from sparsejax.pruning import get_mask, one_shot, pruned

    model, _ = net
    optimizer = nnx.Optimizer(model, pruned(optax.sgd(0.1), one_shot(0.9)), wrt=nnx.Param)
    mask = get_mask(optimizer.opt_state)
    sparse, report = always(model, mask, min_sparsity=0.0)
    assert {row.action for row in report.rows} == {"sparse", "swapped"}
    kept = pattern_masks(sparse)
    assert len(kept) == 8
    np.testing.assert_array_equal(kept["fc"], mask["fc"]["kernel"].get_value())
    assert 0 < kept["stem"].sum() < kept["stem"].size


@pytest.mark.parametrize(
    ("masks", "options", "message"),
    [
        (
            {"blocks/0/conv3": np.ones(1, bool)},
            {},
            r"path 'blocks/0/conv3'; expected .* Did you mean 'blocks/0/conv",
        ),
        (
            {"fc": np.ones((9, 4), bool)},
            {},
            r"sparsify: layer 'fc': mask has shape \(9, 4\); expected shape \(9, 3\)",
        ),
        ({"fc": np.ones((9, 3))}, {}, "sparsify: layer 'fc': mask has dtype float64; expected dtype bool"),
        ([1, 2], {}, "masks has type list"),
        (None, {"skip": ("nothing",)}, "skip has path 'nothing'"),
        (None, {"skip": "fc"}, "skip has the string 'fc'"),
        (None, {"min_sparsity": 80}, "min_sparsity has value 80; expected a fraction between 0 and 1"),
        (None, {"policy": "best"}, "policy has value 'best'; expected 'measured', 'rule' or 'always'"),
        (None, {"policy": "measured"}, "sample_input has no value; expected an input of the model"),
    ],
)
def test_errors_name_what_is_wrong(net, masks, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        sparsify(net[0], masks, **({"policy": "always"} | options))


def test_densify_refuses_tied_sparse_layers():
    sparse, _ = always(nnx.Linear(4, 4, rngs=nnx.Rngs(0)), min_sparsity=0.0)
    other = nnx.clone(sparse)
    other.kernel = sparse.kernel
    with pytest.raises(ValueError, match=r"densify: layer '0' has a variable shared with '1/kernel'"):
        densify(nnx.List([sparse, other]))


def test_top_level_names():
    assert sparsejax.sparsify is sparsejax.nn.sparsify
    assert sparsejax.densify is sparsejax.nn.densify
