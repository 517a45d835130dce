"""Full fine-tuning: the published formula, masks that stay, dense and sparse kernels, batch norm, errors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sparsejax import nn
from sparsejax.analysis.transfer import SGDConfig, finetune, predict, recalibrate_batch_norm
from sparsejax.data import ArrayImageSplit, ImageTask
from sparsejax.models import MLP, find_head, with_new_head, without_head
from sparsejax.nn import dense_kernels
from sparsejax.train import fix_masks

SHORT = SGDConfig.full(learning_rate=0.05, epochs=3, batch_size=16)


def masks_of(model):
    return {path: kernel != 0 for path, kernel in dense_kernels(model).items()}


def test_sparse_and_dense_kernels_give_the_same_network_and_keep_the_mask_to_the_bit(convnet, task):
    before = masks_of(convnet)
    results = {kind: finetune(convnet, task, SHORT, kernels=kind) for kind in ("sparse", "dense")}
    assert isinstance(results["sparse"].model.convs[1], nn.SparseConv)
    assert isinstance(results["dense"].model.convs[1], nnx.Conv)
    for result in results.values():
        assert set(result.masks) == {"convs/1", "convs/2"}
        for path, mask in result.masks.items():
            np.testing.assert_array_equal(mask, before[path])
            assert not dense_kernels(result.model)[path][~mask].any()
        assert result.sparsity_after >= result.sparsity_before - 1e-9
        assert result.sparsity_before == pytest.approx(1 - sum(m.sum() for m in before_conv(before)) / size(before))
    stored = nn.pattern_masks(results["sparse"].model)
    assert set(stored) == {"convs/1", "convs/2"}
    one, other = (dense_kernels(result.model) for result in results.values())
    for path in one:
        np.testing.assert_allclose(one[path], other[path], rtol=2e-3, atol=2e-4, err_msg=path)
    assert results["sparse"].history[-1].loss == pytest.approx(results["dense"].history[-1].loss, rel=1e-3)
    assert results["sparse"].history[-1].loss < results["sparse"].history[0].loss


def before_conv(masks):
    return [mask for path, mask in masks.items() if path.startswith("convs")]


def size(masks):
    return sum(mask.size for mask in before_conv(masks))


def test_the_input_model_is_not_changed_and_the_same_seed_gives_the_same_bits(convnet, task):
    state = jax.tree.map(np.array, nnx.state(convnet))
    first, second, other = (finetune(convnet, task, SHORT, seed=seed, evaluate_every=None) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, state, nnx.state(convnet))
    for a, b in zip(dense_kernels(first.model).values(), dense_kernels(second.model).values(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(dense_kernels(first.model)["fc"], dense_kernels(other.model)["fc"])
    assert [row.top1 is None for row in first.history] == [True, True, False]


def test_a_step_is_the_published_formula(task):
    """v <- mu v + g + lambda w; w <- m (w - eta v), against a loop in NumPy that gets gradients from JAX."""
    model = MLP(64, 5, hidden=(6,), rngs=nnx.Rngs(0))
    kernel = np.array(model.layers[0].kernel[...])
    kernel[::2] = 0
    model.layers[0].kernel[...] = jnp.asarray(kernel)
    mask = kernel != 0
    config = SGDConfig.full(learning_rate=0.1, epochs=2, batch_size=16, weight_decay=0.01, drops=(1,))
    result = finetune(model, task, config, seed=3)

    fresh = with_new_head(model, 3, rngs=nnx.Rngs(3))
    graph, params = nnx.split(fresh)
    velocities = jax.tree.map(jnp.zeros_like, params)
    for epoch, rate in enumerate((0.1, 0.01)):
        order = np.random.default_rng((3, 1, epoch)).permutation(40)
        for start in range(0, 40, 16):
            rows = order[start : start + 16]
            x, y = task.train.pixels[rows], task.train.labels[rows]

            def loss(params, x=x, y=y):
                return optax.softmax_cross_entropy_with_integer_labels(nnx.merge(graph, params)(x), y).mean()

            grads = jax.grad(loss)(params)
            velocities = jax.tree.map(lambda v, g, w: 0.9 * v + g + 0.01 * w, velocities, grads, params)
            params = jax.tree.map(lambda w, v, rate=rate: w - rate * v, params, velocities)
            params["layers"][0]["kernel"] = params["layers"][0]["kernel"].replace(
                params["layers"][0]["kernel"][...] * mask
            )
    expected = nnx.merge(graph, params)
    got = dense_kernels(result.model)
    np.testing.assert_allclose(got["layers/0"], expected.layers[0].kernel[...], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got["fc"], expected.fc.kernel[...], rtol=1e-5, atol=1e-6)


def test_the_rate_falls_after_51_and_101_epochs():
    config = SGDConfig.full("aircraft")
    assert config.learning_rate == 0.01 and SGDConfig.full("pets").learning_rate == 0.001
    rates = [config.rate(epoch) for epoch in range(150)]
    assert [sum(abs(r - want) < 1e-12 for r in rates) for want in (1e-2, 1e-3, 1e-4)] == [51, 50, 49]
    from_optax = config.optimizer(64 * 3)  # three steps an epoch
    params = {"w": jnp.ones(1)}
    state = from_optax.init(params)
    assert [len(jax.tree.leaves(state)) > 0, config.optimizer(64 * 3) is from_optax] == [True, True]


def test_batch_norm_modes(convnet, task):
    def statistics(model):
        return np.concatenate([np.asarray(norm.mean[...]) for norm in model.bns])

    before = statistics(convnet)
    modes = ("train", "frozen", "recalibrated")
    found = {
        mode: statistics(finetune(convnet, task, SGDConfig.full(epochs=1, batch_norm=mode)).model) for mode in modes
    }
    assert not np.allclose(found["train"], before)
    np.testing.assert_array_equal(found["frozen"], before)
    again = recalibrate_batch_norm(convnet, task.train)
    np.testing.assert_array_equal(found["recalibrated"], statistics(again))
    np.testing.assert_array_equal(statistics(convnet), before)
    # The first batch norm's statistics, for one batch: those of the first convolution's output.
    out = np.asarray(convnet.convs[0](jnp.asarray(task.train.pixels)), np.float64)
    np.testing.assert_allclose(again.bns[0].mean[...], out.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(again.bns[0].var[...], out.var(axis=(0, 1, 2)), rtol=1e-4, atol=1e-5)
    assert again.bns[0].momentum == convnet.bns[0].momentum
    in_parts = recalibrate_batch_norm(convnet, task.train, batch_size=16, passes=2)
    np.testing.assert_allclose(in_parts.bns[0].mean[...], again.bns[0].mean[...], rtol=1e-4, atol=1e-5)


def test_without_masks_the_zeros_are_the_mask_and_a_sparse_network_keeps_its_pattern(convnet):
    sparse, _ = nn.sparsify(convnet, min_sparsity=0.5, policy="always")
    prepared = fix_masks(sparse, keep_dense=("fc",))
    for path, mask in masks_of(convnet).items():
        if path in ("convs/1", "convs/2"):
            np.testing.assert_array_equal(prepared.masks[path], mask)
    assert set(prepared.prunable) == {"convs/0", "convs/1", "convs/2"}
    # A stored weight that happens to be zero stays trainable.
    sparse.convs[1].kernel[...] = sparse.convs[1].kernel[...].at[0].set(0.0)
    np.testing.assert_array_equal(fix_masks(sparse).masks["convs/1"], prepared.masks["convs/1"])


def test_masks_that_do_not_match_are_refused(convnet):
    good = masks_of(convnet)
    cases = [
        ({"convs/9": good["convs/1"]}, r"masks has an entry for 'convs/9'; expected layers of the model"),
        ({"convs/1": good["convs/1"][0]}, r"the mask of 'convs/1' has dtype bool and shape \(3, 4, 8\)"),
        ({"convs/1": good["convs/1"].astype(int)}, r"the mask of 'convs/1' has dtype int64"),
        ({"convs/1": np.zeros_like(good["convs/1"])}, r"nonzero weights outside it; expected none"),
    ]
    for masks, words in cases:
        with pytest.raises(ValueError, match=words):
            fix_masks(convnet, masks)
    with pytest.raises(ValueError, match="kernels has value 'fast'"):
        fix_masks(convnet, kernels="fast")


def test_a_weight_that_left_its_mask_is_found(convnet):
    prepared = fix_masks(convnet, kernels="dense")
    prepared.check("test")
    prepared.model.convs[1].kernel[...] = jnp.ones_like(prepared.model.convs[1].kernel[...])
    with pytest.raises(RuntimeError, match=r"layer 'convs/1' has .* weights outside its mask"):
        prepared.check("test")


def test_the_best_epoch_is_chosen_on_the_validation_split_only(convnet, task):
    with_val = ImageTask("v", task.train, task.test, 3, val=task.test)
    result = finetune(convnet, with_val, SHORT)
    assert result.epoch == 1 + int(np.argmax([row.val_top1 for row in result.history]))
    assert result.top1 == max(row.val_top1 for row in result.history)
    assert finetune(convnet, task, SHORT).epoch == 3


def test_a_diverging_loss_is_an_error(convnet, task):
    with pytest.raises(ValueError, match=r"the loss of epoch 1 has value (nan|inf); expected a finite number"):
        bad = ArrayImageSplit(task.train.pixels * np.float32(np.inf), task.train.labels)
        finetune(convnet, ImageTask("bad", bad, task.test, 3), SGDConfig.full(epochs=1))


@pytest.mark.parametrize(
    ("field", "value"), [("epochs", 0), ("learning_rate", -1.0), ("momentum", 1.0), ("batch_norm", "none")]
)
def test_settings_out_of_range(field, value):
    with pytest.raises(ValueError, match=f"SGDConfig: {field} has value"):
        SGDConfig(**{field: value})


def test_heads_by_path(convnet):
    assert find_head(convnet) == "fc"
    nested = nnx.Sequential(convnet, nnx.Linear(5, 4, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"no classifier with a usual name .*layers/1"):
        find_head(nested)
    images = jnp.ones((2, 8, 8, 1))
    assert with_new_head(nested, 7, head="layers/1", rngs=nnx.Rngs(0))(images).shape == (2, 7)
    assert without_head(nested, "layers/1")(images).shape == (2, 5)
    assert without_head(convnet, "")(images).shape == (2, 5)
    for wrong in ("layers/7", "nothing", "layers/0/x"):
        with pytest.raises(ValueError, match="head has value"):
            without_head(nested, wrong)
    with pytest.raises(ValueError, match="type Conv; expected a linear layer"):
        with_new_head(convnet, 3, head="convs/0", rngs=nnx.Rngs(0))
    bound = 1 / np.sqrt(8)
    head = with_new_head(convnet, 3000, rngs=nnx.Rngs(0)).fc
    assert abs(float(abs(head.kernel[...]).max()) - bound) < 1e-3 and float(abs(head.bias[...]).max()) <= bound


def test_predictions_do_not_depend_on_the_size_of_the_last_batch(convnet, task, monkeypatch):
    whole = predict(convnet, task.test)
    monkeypatch.setattr("sparsejax.analysis.transfer.runs._finetune._TEST_BATCH", 7)
    np.testing.assert_array_equal(predict(convnet, task.test), whole)
