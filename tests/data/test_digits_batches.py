"""The bundled digits, the data set container, specs and minibatches."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from sparsejax.data import Dataset, batches, digits, load


def toy(**changes) -> dict:
    images, labels = np.zeros((3, 2, 2, 1), np.float32), np.array([0, 1, 2], np.int32)
    fields = {
        "name": "toy",
        "train_images": images,
        "train_labels": labels,
        "test_images": images,
        "test_labels": labels,
        "num_classes": 3,
    }
    return fields | changes


def test_digits_hold_every_bundled_example_once():
    from sklearn.datasets import load_digits

    data = digits(seed=3)
    assert data.image_shape == (8, 8, 1) and data.num_classes == 10
    assert data.train_images.dtype == np.float32 and data.train_labels.dtype == np.int32
    both = np.concatenate([data.train_images, data.test_images]).reshape(1797, 64) * 16
    labels = np.concatenate([data.train_labels, data.test_labels])
    original, target = load_digits(return_X_y=True)
    ours = np.column_stack([both.round(), labels])
    theirs = np.column_stack([original, target])
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


def test_digits_split_depends_on_the_seed_only():
    first, again, other = digits(seed=1), digits(seed=1), digits(seed=2)
    np.testing.assert_array_equal(first.test_images, again.test_images)
    np.testing.assert_array_equal(first.train_labels, again.train_labels)
    assert not np.array_equal(first.test_labels, other.test_labels)
    assert len(digits(test_fraction=0.5).test_labels) == 898


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1e-6, float("nan")])
def test_digits_refuse_an_empty_split(fraction):
    with pytest.raises(ValueError, match="digits: test_fraction has value"):
        digits(test_fraction=fraction)


def test_digits_refuse_a_negative_seed():
    with pytest.raises(ValueError, match="digits: seed has value -1; expected at least 0"):
        digits(seed=-1)


def test_digits_name_the_extra_when_sklearn_is_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'sparsejax\[all\]'"):
        digits()


def test_standardized_uses_training_statistics():
    data = digits()
    scaled = data.standardized()
    assert scaled.train_images.dtype == np.float32
    np.testing.assert_allclose(scaled.train_images.mean(), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.train_images.std(), 1, rtol=1e-5)
    mean, std = data.train_images.mean(), data.train_images.std()
    np.testing.assert_allclose(scaled.test_images, (data.test_images - mean) / std, atol=1e-5)
    assert data.train_images.min() == 0 and data.train_images.max() == 1


def test_standardized_works_per_channel_and_survives_a_constant_channel():
    images = np.stack([np.full((4, 2, 2), 7.0), np.arange(16.0).reshape(4, 2, 2)], axis=-1)
    images, labels = images.astype(np.float32), np.zeros(4, np.int32)
    scaled = Dataset("toy", images, labels, images, labels, 1).standardized().train_images
    np.testing.assert_array_equal(scaled[..., 0], 0)
    np.testing.assert_allclose(scaled[..., 1].std(), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_images": np.zeros((3, 2, 2), np.float32)}, "train_images has dtype float32 and shape"),
        ({"test_images": np.zeros((3, 2, 2, 1))}, "test_images has dtype float64"),
        ({"test_images": np.zeros((0, 2, 2, 1), np.float32)}, "nothing empty"),
        ({"test_images": np.zeros((3, 4, 2, 1), np.float32)}, "as in train_images"),
        ({"train_labels": np.array([0, 1], np.int32)}, r"train_labels .* expected int32\[3\]"),
        ({"train_labels": np.array([0, 1, 2])}, "train_labels has dtype int64"),
        ({"test_labels": np.array([0, 1, 3], np.int32)}, "values 0 to 3; expected the range 0 to 2"),
        ({"test_labels": np.array([0, -1, 2], np.int32)}, "values -1 to 2"),
    ],
)
def test_dataset_refuses_inconsistent_fields(changes, words):
    with pytest.raises(ValueError, match=words):
        Dataset(**toy(**changes))


def test_load_understands_digits_and_nothing_else():
    np.testing.assert_array_equal(load("digits").test_labels, digits().test_labels)
    for spec in ("", "idx", "idx:", "mnist", "csv:file", "digits:3"):
        with pytest.raises(ValueError, match="load: spec has value"):
            load(spec)


def test_batches_pair_images_with_labels_and_drop_nothing():
    labels = np.arange(10)
    images = labels[:, None] * 100
    got = list(batches(images, labels, 4, seed=0, epoch=0))
    assert [len(batch) for _, batch in got] == [4, 4, 2]
    for image, label in got:
        np.testing.assert_array_equal(image[:, 0], label * 100)
    np.testing.assert_array_equal(np.sort(np.concatenate([label for _, label in got])), labels)


def test_batches_drop_the_short_batch_only_when_asked():
    labels = np.arange(10)
    got = list(batches(labels, labels, 4, seed=0, epoch=0, drop_last=True))
    assert [len(batch) for _, batch in got] == [4, 4]
    assert [len(b) for _, b in batches(labels, labels, 5, seed=0, epoch=0, drop_last=True)] == [5, 5]


def test_batches_order_depends_on_seed_and_epoch_only():
    labels = np.arange(50)

    def order(seed, epoch, size=7):
        return np.concatenate([label for _, label in batches(labels, labels, size, seed=seed, epoch=epoch)])

    np.testing.assert_array_equal(order(1, 2), order(1, 2))
    np.testing.assert_array_equal(order(1, 2), order(1, 2, size=50))
    orders = {tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize(
    ("size", "options", "words"),
    [
        (0, {}, "batch_size has value 0; expected at least 1"),
        (6, {"drop_last": True}, "batch_size has value 6; expected 1 to 5"),
        (2, {"seed": -1}, "seed has value -1"),
        (2, {"epoch": -1}, "epoch has value -1"),
    ],
)
def test_batches_refuse_bad_arguments_at_once(size, options, words):
    labels = np.arange(5)
    with pytest.raises(ValueError, match=words):
        batches(labels, labels, size, **({"seed": 0, "epoch": 0} | options))


def test_batches_refuse_unequal_counts():
    with pytest.raises(ValueError, match="labels has 4 elements; expected 5, as many as images"):
        batches(np.arange(5), np.arange(4), 2, seed=0, epoch=0)
