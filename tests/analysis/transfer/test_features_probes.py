"""Features of a frozen network, and linear classifiers on them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax import nn
from sparsejax.analysis.transfer import Features, SGDConfig, extract_features, linear_probe, train_linear_online
from sparsejax.analysis.transfer.runs._probe import epoch_order, initial_head
from sparsejax.data import ArrayImageSplit


def blobs(count, seed, classes=3, width=6):
    rng = np.random.default_rng(seed)
    y = (np.arange(count) % classes).astype(np.int32)
    centres = np.random.default_rng(0).normal(0, 1, (classes, width))
    return Features((centres[y] + rng.normal(0, 0.8, (count, width))).astype(np.float32), y)


@pytest.fixture(scope="module")
def splits():
    return blobs(50, 1), blobs(40, 2)


def test_features_depend_on_neither_batch_size_nor_form(convnet, task):
    whole = extract_features(convnet, task.test)
    assert whole.x.shape == (30, 8) and whole.x.dtype == np.float32
    state = jax.tree.map(np.array, nnx.state(convnet))
    np.testing.assert_allclose(extract_features(convnet, task.test, batch_size=7).x, whole.x, rtol=1e-5, atol=1e-6)
    sparse, _ = nn.sparsify(convnet, min_sparsity=0.5, policy="always")
    np.testing.assert_allclose(extract_features(sparse, task.test).x, whole.x, rtol=1e-4, atol=1e-5)
    # Inference mode: stored statistics, which stay.
    jax.tree.map(np.testing.assert_array_equal, state, nnx.state(convnet))
    reference = nnx.clone(convnet)
    reference.eval()
    np.testing.assert_allclose(reference.features(jnp.asarray(task.test.pixels)), whole.x, rtol=1e-5, atol=1e-6)


def test_features_with_pixels_are_averaged(task):
    conv = nnx.Conv(1, 4, (3, 3), rngs=nnx.Rngs(0))
    found = extract_features(nnx.Sequential(conv), task.test, head="")
    np.testing.assert_allclose(found.x, conv(jnp.asarray(task.test.pixels)).mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)


def test_the_cache_is_keyed_by_weights_and_data(convnet, task, tmp_path, monkeypatch):
    calls = []
    first = extract_features(convnet, task.test, cache=tmp_path, batch_size=10, progress=lambda *a: calls.append(a))
    assert calls == [(10, 30), (20, 30), (30, 30)]

    def forbidden(*_):
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        patch.setattr("sparsejax.analysis.transfer.runs._features.features_of", forbidden)
        np.testing.assert_array_equal(extract_features(convnet, task.test, cache=tmp_path).x, first.x)
        with pytest.raises(AssertionError):
            extract_features(convnet, task.train, cache=tmp_path)
    convnet.convs[1].kernel[...] *= 2
    assert not np.allclose(extract_features(convnet, task.test, cache=tmp_path).x, first.x)
    assert len(list(tmp_path.iterdir())) == 2


def test_bad_features_are_refused(convnet, task):
    with pytest.raises(ValueError, match="not finite in 1 of 3 rows, first in row 1"):
        Features(np.array([[0.0], [np.nan], [1.0]], np.float32), np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="y has 2 elements; expected 3"):
        Features(np.zeros((3, 1), np.float32), np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="not empty"):
        Features(np.zeros((0, 1), np.float32), np.zeros(0, np.int32))
    bad = ArrayImageSplit(np.where(np.arange(30)[:, None, None, None] == 4, np.nan, task.test.pixels), task.test.labels)
    with pytest.raises(ValueError, match="Features: x has values that are not finite in 1 of 30 rows, first in row 4"):
        extract_features(convnet, bad)
    with pytest.raises(ValueError, match="batch_size has value 0"):
        extract_features(convnet, task.test, batch_size=0)


def test_sgd_follows_the_published_formula_step_by_step(splits):
    """A loop in NumPy: gradient of the mean cross-entropy, L2 in the gradient, momentum, rates by epoch."""
    train, test = splits
    config = SGDConfig.linear(epochs=6, drops=(2, 4), learning_rate=0.1, batch_size=16)
    found = linear_probe(train, test, num_classes=3, config=config, seeds=(7, 8))
    for result in found:
        w, b = (part.astype(np.float64) for part in initial_head(result.seed, 6, 3))
        vw, vb = np.zeros_like(w), np.zeros_like(b)
        for epoch in range(6):
            rate = 0.1 * 0.1 ** (epoch >= 2) * 0.1 ** (epoch >= 4)
            for rows in epoch_order(result.seed, epoch, 50, 16):
                rows = rows[rows >= 0]
                z = train.x[rows] @ w + b
                p = np.exp(z - z.max(axis=1, keepdims=True))
                p /= p.sum(axis=1, keepdims=True)
                p[np.arange(len(rows)), train.y[rows]] -= 1
                p /= len(rows)
                vw = 0.9 * vw + train.x[rows].T @ p + 5e-4 * w
                vb = 0.9 * vb + p.sum(axis=0) + 5e-4 * b
                w, b = w - rate * vw, b - rate * vb
        np.testing.assert_allclose(result.weights, w, rtol=1e-5, atol=2e-6)
        np.testing.assert_allclose(result.bias, b, rtol=1e-5, atol=2e-6)
        assert result.top1 == (np.argmax(test.x @ w + b, axis=1) == test.y).mean()
        assert result.history.shape == (6, 2) and result.history[-1, 1] == pytest.approx(result.top1)


def test_every_epoch_visits_every_example_once():
    order = epoch_order(0, 3, 10, 4)
    assert order.shape == (3, 4) and sorted(order[order >= 0].tolist()) == list(range(10))
    assert (order[-1, 2:] == -1).all() and not np.array_equal(order, epoch_order(0, 4, 10, 4))


def test_lbfgs_is_at_the_minimum(splits):
    """The gradient of C sum of cross-entropies + |W|^2 / 2 is zero, in float64."""
    train, test = splits
    (result,) = linear_probe(train, test, num_classes=3, solver="lbfgs", C=0.5)
    w, b = result.weights.astype(np.float64), result.bias.astype(np.float64)

    def objective(w, b):
        z = train.x @ w + b
        z = z - z.max(axis=1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        return -0.5 * log_p[np.arange(50), train.y].sum() + 0.5 * (w**2).sum()

    best, rng = objective(w, b), np.random.default_rng(0)
    for scale in (1e-2, 1e-1):
        for _ in range(20):
            assert objective(w + scale * rng.normal(size=w.shape), b + scale * rng.normal(size=3)) > best
    step = 1e-4
    for i, j in np.ndindex(w.shape):
        moved = w.copy()
        moved[i, j] += step
        assert abs(objective(moved, b) - best) / step < 5e-3


def test_c_is_chosen_on_validation_data(splits):
    train, test = splits
    picked = linear_probe(train, test, num_classes=3, solver="lbfgs", C=None, val=blobs(30, 3), seeds=(0, 1))
    assert picked[0].C == picked[1].C and 1e-6 <= picked[0].C <= 1e5
    alone = linear_probe(train, test, num_classes=3, solver="lbfgs", C=None)
    assert alone[0].top1 > 0.5


def test_two_classes_and_classes_without_training_examples():
    train, test = blobs(20, 1, classes=2), blobs(20, 2, classes=2)
    (result,) = linear_probe(train, test, num_classes=4, solver="lbfgs")
    assert result.weights.shape == (6, 4) and result.top1 > 0.6
    assert np.isnan(result.per_class[2:]).all() and result.mean_per_class == pytest.approx(result.top1)


def test_standardising_is_folded_into_the_weights(splits):
    train, test = splits
    scale = np.array([1, 10, 100, 1000, 0.1, 0.01], np.float32)
    stretched = [Features(part.x * scale + 5, part.y) for part in splits]
    plain = linear_probe(train, test, num_classes=3, standardize=True, config=SGDConfig(epochs=5, learning_rate=0.1))
    other = linear_probe(*stretched, num_classes=3, standardize=True, config=SGDConfig(epochs=5, learning_rate=0.1))
    logits = [s.x @ r[0].weights + r[0].bias for s, r in zip((test, stretched[1]), (plain, other), strict=True)]
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-2, atol=2e-3)


def test_probes_refuse_what_does_not_fit(splits):
    train, test = splits
    narrow = Features(test.x[:, :4], test.y)
    for arguments, options, words in (
        ((train, narrow), {}, "test has 4 features; expected 6"),
        ((train, test), {"num_classes": 2}, "train has classes 0 to 2; expected the range 0 to 1"),
        ((train, test), {"solver": "adam"}, "solver has value 'adam'"),
        ((Features(train.x, np.zeros(50, np.int32)), test), {"solver": "lbfgs"}, "train has 1 class"),
    ):
        with pytest.raises(ValueError, match=words):
            linear_probe(*arguments, **{"num_classes": 3, **options})


def test_online_equals_pre_extracted_without_augmentation(convnet, task):
    config = SGDConfig.linear(epochs=4, batch_size=16, learning_rate=0.1)
    online = train_linear_online(convnet, task, config, seed=5)
    features = [extract_features(convnet, split) for split in (task.train, task.test)]
    (offline,) = linear_probe(*features, num_classes=3, config=config, seeds=(5,))
    np.testing.assert_allclose(online.weights, offline.weights, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(online.history, offline.history, rtol=1e-4, atol=1e-5)
