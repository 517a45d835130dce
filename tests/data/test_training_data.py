"""Data for training: one way to name it, colour, augmentation as a pure function, and reading ahead in order."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from PIL import Image

from helpers.dataset_layouts import cifar10, picture
from sparsejax.data import (
    ArrayImageSplit,
    Augmentation,
    ByteImageSplit,
    Preprocessing,
    digits,
    downstream_task,
    idx_dataset,
    idx_images,
    load_task,
    read_ahead,
)
from sparsejax.data._byte_split import channel_statistics

NATIVE = Preprocessing(size=None, augmentation=Augmentation("shift"))


def write_npz(path, **changes):
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8),
        "y_train": np.array([0, 1, 2, 0, 1, 2])[:, None],
        "x_test": rng.integers(0, 256, (3, 5, 4, 3), dtype=np.uint8),
        "y_test": np.array([0, 1, 2]),
    } | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return arrays


def colour_folder(root, size=(6, 6)):
    for split in ("train", "test"):
        for i, name in enumerate(("cat", "dog")):
            for j in range(2):
                picture(root / split / name / f"{j}.png", 50 * i + j, size=size)
    return root


def test_npz_in_colour_is_standardised(tmp_path):
    arrays = write_npz(tmp_path / "toy.npz")
    task = load_task(f"npz:{tmp_path / 'toy.npz'}")
    assert (task.name, task.num_classes, len(task.train), len(task.test)) == ("toy", 3, 6, 3)
    images = task.train.images(range(6))
    assert images.shape == (6, 5, 4, 3) and images.dtype == np.float32
    np.testing.assert_allclose(images.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(images.std((0, 1, 2)), 1, atol=1e-5)
    write_npz(tmp_path / "float.npz", **{k: arrays[k].astype(np.float32) / 255 for k in ("x_train", "x_test")})
    floats = load_task(f"npz:{tmp_path / 'float.npz'}")
    np.testing.assert_allclose(floats.test.images([1]), task.test.images([1]), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y_test": None}, "toy.npz' has no array y_test; expected the arrays x_train"),
        ({"x_train": np.zeros((6, 5), np.uint8)}, r"has x_train uint8\[6, 5\]"),
        ({"x_test": np.zeros((3, 9, 9, 3), np.uint8)}, r"has x_test uint8\[3, 9, 9, 3\]; expected images like x_train"),
        ({"y_train": np.zeros(6)}, r"has y_train float64\[6\]; expected integers"),
        ({"y_train": np.zeros(5, int)}, "labels has 5 elements; expected 6"),
        ({"y_train": np.array([0, 1, 3, 0, 1, 3])}, r"no example of 1 classes \(2\)"),
    ],
)
def test_bad_npz_files_are_named(tmp_path, changes, words):
    write_npz(tmp_path / "toy.npz", **changes)
    with pytest.raises(ValueError, match=words) as error:
        load_task(f"npz:{tmp_path / 'toy.npz'}")
    assert "toy.npz" in str(error.value)


def test_cifar_and_folders_keep_the_size_that_pictures_have(tmp_path):
    (tmp_path / "cifar").mkdir()
    cifar10(tmp_path / "cifar")
    preprocessing = Preprocessing(size=None, augmentation=Augmentation("none", flip=False))
    cifar = downstream_task("cifar10", tmp_path / "cifar", preprocessing, allow_missing_classes=True)
    assert isinstance(cifar.train, ByteImageSplit) and cifar.train.images([0]).shape == (1, 32, 32, 3)
    colour_folder(tmp_path / "pictures")
    task = load_task(f"folder:{tmp_path / 'pictures'}", preprocessing)
    assert task.train.images([0, 3]).shape == (2, 6, 6, 3)
    picture(tmp_path / "pictures/test/dog/9.png", size=(7, 6))
    with pytest.raises(ValueError, match=r"9\.png' has 7 x 6 pixels; expected 6 x 6, .*Give a size \(--size\)"):
        load_task(f"folder:{tmp_path / 'pictures'}", preprocessing)
    sized = load_task(f"folder:{tmp_path / 'pictures'}", Preprocessing(resize=8, size=8))
    assert sized.test.images(range(5)).shape == (5, 8, 8, 3)


def test_corrupt_pictures_are_named_and_skipped_on_request_only(tmp_path):
    root = colour_folder(tmp_path)
    bad = root / "train/cat/0.png"
    bad.write_bytes(bad.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"train/cat/0\.png' has other content"):  # its header is read first
        load_task(f"folder:{root}", NATIVE)
    task = load_task(f"folder:{root}", Preprocessing(resize=8, size=8))
    with pytest.raises(ValueError, match=r"train/cat/0\.png' has other content .*skip such files with skip_corrupt"):
        task.train.images([0])
    with pytest.warns(UserWarning, match=r"Skipped .*train/cat/0\.png"):
        assert load_task(f"folder:{root}", NATIVE, skip_corrupt=True).train.labels.tolist() == [0, 1, 1]
    (root / "train/cat/1.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="cat' has 2 images, none of which can be read"):
        load_task(f"folder:{root}", NATIVE, skip_corrupt=True)


def test_idx_images_stay_in_their_file(tmp_path):
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (10, 3, 2), dtype=np.uint8), np.tile(np.arange(2, dtype=np.uint8), 5)
    head = [
        bytes([0, 0, 8, 3, *(byte for n in pixels.shape for byte in (0, 0, 0, n))]),
        bytes([0, 0, 8, 1, 0, 0, 0, 10]),
    ]
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(head[0] + pixels.tobytes())
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(head[1] + labels.tobytes())
    task, loaded = idx_images(tmp_path), idx_dataset(tmp_path).standardized()
    assert isinstance(task.train.pixels.base, np.memmap)
    for lazy, images in ((task.train, loaded.train_images), (task.test, loaded.test_images)):
        np.testing.assert_allclose(lazy.images(range(len(lazy))), images, atol=1e-5)


def test_statistics_are_those_of_numpy():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 2), dtype=np.uint8)
    mean, std = channel_statistics(pixels)
    np.testing.assert_allclose(mean, (pixels / 255).mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (pixels / 255).std((0, 1, 2)), rtol=1e-12)
    assert channel_statistics(np.full((1, 2, 2, 1), 7, np.uint8))[1] == (1.0,)


@pytest.mark.parametrize("kind", [ArrayImageSplit, ByteImageSplit])
def test_augmentation_depends_on_seed_and_row_alone(kind):
    pixels = np.random.default_rng(0).integers(1, 256, (8, 6, 6, 3), dtype=np.uint8)
    labels, change = np.zeros(8, np.int32), Augmentation("shift", padding=2)
    if kind is ArrayImageSplit:
        split = ArrayImageSplit(pixels.astype(np.float32), labels, change)
    else:
        split = ByteImageSplit(pixels, labels, (0.0,) * 3, (1.0,) * 3, change)
    batch = split.images([5, 2, 7], seed=(3, 11))
    np.testing.assert_array_equal(batch[1], split.images([2], seed=(3, 11))[0])
    assert not np.array_equal(batch, split.images([5, 2, 7], seed=(3, 12)))
    plain = split.images([5, 2, 7])
    assert not np.array_equal(batch, plain)
    again = split.images([5, 2, 7], seed=(3, 11))
    np.testing.assert_array_equal(batch, again)


def test_shifts_and_flips_are_those_and_no_others():
    image = np.arange(1, 10, dtype=np.float32).reshape(3, 3, 1)
    shifts = {
        (down, right): np.pad(image, ((1, 1), (1, 1), (0, 0)))[1 - down : 4 - down, 1 - right : 4 - right]
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    }
    expected = {each.tobytes() for shifted in shifts.values() for each in (shifted, shifted[:, ::-1])}
    change = Augmentation("shift", padding=1)
    seen = {change.apply(image, np.random.default_rng(i)).tobytes() for i in range(300)}
    assert seen == expected
    assert not Augmentation("shift", flip=False, padding=5).apply(image, np.random.default_rng(3)).any()


def test_bad_augmentations():
    for make, words in (
        (lambda: Augmentation("zoom"), "crop has value 'zoom'; expected one of none, shift, resized"),
        (lambda: Augmentation(padding=-1), "padding has value -1"),
        (lambda: Preprocessing(size=None), "crop 'resized' without a size"),
        (
            lambda: load_task("digits", augmentation=Augmentation("resized")).train.images([0], seed=1),
            "augmentation has crop 'resized'",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            make()


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_batches_are_read_in_order_and_a_bounded_number_ahead(threads):
    read, lock = [], threading.Lock()

    def batch(number):
        with lock:
            read.append(number)
        return number, np.full(3, number)

    numbers = []
    for number, array in read_ahead(batch, 4, 24, threads=threads):
        numbers.append(number)
        assert (array == number).all()
        time.sleep(0.002)
        with lock:
            assert max(read) <= number + 3 * threads
    assert numbers == list(range(4, 24)) and sorted(read) == numbers
    assert list(read_ahead(batch, 3, 3, threads=threads)) == []


def test_an_error_comes_in_its_place():
    def batch(number):
        if number == 3:
            raise ValueError("the third")
        return number

    results = read_ahead(batch, 0, 9)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the third"):
        next(results)


def test_digits_are_the_data_set_of_the_package():
    np.testing.assert_array_equal(load_task("digits").test.images([0, 1]), digits().standardized().test_images[:2])


def test_grey_and_palette_pictures_become_colour(tmp_path):
    for split in ("train", "test"):
        for name, mode in (("a", "L"), ("b", "P")):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new(mode, (4, 4)).save(tmp_path / split / name / "1.png")
    assert load_task(f"folder:{tmp_path}", NATIVE).train.images([0, 1]).shape == (2, 4, 4, 3)
