"""Lazy splits, folders of images, and the twelve downstream data sets, in layouts that the test writes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from helpers import dataset_layouts as layouts
from helpers.dataset_layouts import MAKERS, cifar10, picture
from helpers.untrusted_files import bounded_memory
from sparsejax.data import (
    DOWNSTREAM_DATASETS,
    ArrayImageSplit,
    ImageTask,
    LazyImageSplit,
    Preprocessing,
    downstream_task,
    image_folder,
    load_task,
)
from sparsejax.data._matlab import read_matlab

SMALL = Preprocessing(resize=8, size=8)


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_layouts(make, tmp_path):
    train, test = make(tmp_path)
    task = downstream_task(make.__name__, tmp_path, SMALL, allow_missing_classes=True)
    assert task.train.labels.tolist() == train and task.test.labels.tolist() == test
    facts = DOWNSTREAM_DATASETS[make.__name__]
    assert (task.metric, task.group, task.num_classes) == (facts.metric, facts.group, facts.num_classes)
    assert task.test.images([0]).shape == (1, 8, 8, 3)
    with pytest.raises(
        ValueError, match=rf"the train split has no example of {facts.num_classes - len(set(train))} cla"
    ):
        downstream_task(make.__name__, tmp_path, SMALL)


@pytest.mark.parametrize("name", DOWNSTREAM_DATASETS)
def test_an_empty_folder_and_a_missing_one(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"downstream_task: .* expected"):
        downstream_task(name, tmp_path)
    with pytest.raises(FileNotFoundError, match="expected an existing folder"):
        downstream_task(name, tmp_path / "none")


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path):
    cifar10(tmp_path)

    class Evil:
        def __reduce__(self):
            return print, ("ran",)

    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(pickle.dumps({b"data": Evil()}))
    with pytest.raises(
        ValueError,
        match=r"cifar-10-batches-py/test_batch' has other content .UnpicklingError: it asks for builtins.print",
    ):
        downstream_task("cifar10", tmp_path, allow_missing_classes=True)


def test_folders_of_classes(tmp_path):
    for split in ("train", "test"):
        for i, name in enumerate(("cat", "dog")):
            picture(tmp_path / split / name / "1.png", 50 * i)
            picture(tmp_path / split / name / "deep/2.png", 50 * i + 10)
    (tmp_path / "train/cat/notes.txt").write_text("no image")
    task = image_folder(tmp_path, Preprocessing(resize=8, size=8, mean=(0, 0, 0), std=(1, 1, 1)))
    assert task.train.labels.tolist() == [0, 0, 1, 1] and task.num_classes == 2
    np.testing.assert_allclose(task.train.images([2])[0], 50 / 255, atol=1e-6)
    assert load_task(f"folder:{tmp_path}", SMALL).name == tmp_path.name
    picture(tmp_path / "test/fox/1.png")
    with pytest.raises(ValueError, match=r"other classes \(fox\); expected those of train"):
        image_folder(tmp_path)
    (tmp_path / "train/fox").mkdir()
    with pytest.raises(FileNotFoundError, match="fox' has no image; expected at least one"):
        image_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"the folders \[\]; expected the folders train and test"):
        image_folder(tmp_path / "train")
    with pytest.raises(FileNotFoundError, match="expected an existing folder"):
        image_folder(tmp_path / "none")


def test_reading_is_resizing_cropping_and_scaling(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    preprocessing = Preprocessing(resize=10, size=8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    split = LazyImageSplit([tmp_path / "a.png", pixels], np.zeros(2, np.int32), preprocessing)
    out = split.images([0, 1])
    # The shorter side has ten pixels already: the centre crop is plain slicing.
    expected = (pixels[2:10, 1:9] / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    np.testing.assert_allclose(out[0], expected, atol=1e-6)
    np.testing.assert_array_equal(out[0], out[1])
    grey = LazyImageSplit([pixels], np.zeros(1, np.int32), Preprocessing(10, 8, (0.0,), (1.0,), channels=1)).images([0])
    assert grey.shape == (1, 8, 8, 1)
    bicubic = split.with_preprocessing(interpolation="bicubic", resize=16, size=16)
    assert not np.allclose(bicubic.images([0]), split.with_preprocessing(resize=16, size=16).images([0]), atol=1e-3)


def test_random_crops_depend_on_seed_and_index_alone(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 30, 3), dtype=np.uint8)
    split = LazyImageSplit(pixels, np.zeros(3, np.int32), Preprocessing(16, 16))
    both, alone = split.images([0, 2], seed=(1, 2)), split.images([2], seed=(1, 2))
    np.testing.assert_array_equal(both[1], alone[0])
    assert not np.array_equal(alone, split.images([2], seed=(1, 3)))
    assert not np.array_equal(both[0], split.images([0])[0])


def test_fingerprints_follow_content(tmp_path):
    labels = np.array([0, 1], np.int32)
    path = picture(tmp_path / "a.png")
    prints = {
        LazyImageSplit([path, path], labels, SMALL).fingerprint(),
        LazyImageSplit([path, path], labels[::-1].copy(), SMALL).fingerprint(),
        LazyImageSplit([path, path], labels, Preprocessing(9, 8)).fingerprint(),
        ArrayImageSplit(np.zeros((2, 3), np.float32), labels).fingerprint(),
        ArrayImageSplit(np.ones((2, 3), np.float32), labels).fingerprint(),
    }
    assert len(prints) == 5


def test_bad_splits_are_refused(tmp_path):
    images, labels = np.zeros((3, 2), np.float32), np.array([0, 1, 2], np.int32)
    good = ArrayImageSplit(images, labels)
    cases = [
        (
            lambda: ArrayImageSplit(images, labels[:2]),
            ValueError,
            "labels has 2 elements; expected 3, as many as pixels",
        ),
        (lambda: ArrayImageSplit(images[:0], labels[:0]), ValueError, "pixels has no element"),
        (lambda: ArrayImageSplit(images.astype(float), labels), ValueError, "pixels has dtype float64"),
        (lambda: LazyImageSplit([], labels[:0]), ValueError, "pictures has no element"),
        (lambda: LazyImageSplit(["a"], np.array([0.0])), ValueError, "labels has dtype float64"),
        (
            lambda: LazyImageSplit([tmp_path / "no.png"], labels[:1]).images([0]),
            FileNotFoundError,
            "expected an existing image",
        ),
        (lambda: ImageTask("t", good, good, 2), ValueError, "t: the train split has labels 0 to 2; expected the range"),
        (lambda: ImageTask("t", good, good, 3, metric="f1"), ValueError, "metric has value 'f1'"),
        (
            lambda: ImageTask("t", good, ArrayImageSplit(images[:2], labels[:2]), 3),
            ValueError,
            r"t: the test split has no example of 1 classes \(2\); expected all 3. Pass allow_missing_classes",
        ),
        (lambda: Preprocessing(resize=8, size=9), ValueError, "size has value 9"),
        (lambda: Preprocessing(mean=(0.0,)), ValueError, "mean, std has 1 and 3 values"),
        (lambda: Preprocessing(interpolation="nearest"), ValueError, "interpolation has value 'nearest'"),
        (lambda: load_task("cifar"), ValueError, "spec has value 'cifar'"),
        (lambda: downstream_task("mnist", tmp_path), ValueError, "name has value 'mnist'"),
    ]
    for call, error, words in cases:
        with pytest.raises(error, match=words):
            call()
    assert ImageTask("t", good, ArrayImageSplit(images[:2], labels[:2]), 3, allow_missing_classes=True).num_classes == 3


@pytest.mark.parametrize("size", [(2000, 1), (1, 2000), (101, 1)])
@pytest.mark.parametrize("seed", [None, 0])
def test_extreme_aspects_are_refused_by_name(tmp_path, size, seed):
    path = picture(tmp_path / "strip.png", size=size)
    split = LazyImageSplit([path], np.zeros(1, np.int32))
    with pytest.raises(
        ValueError, match=rf"strip.png' has {size[0]} x {size[1]} pixels; expected no side more than 100"
    ):
        split.images([0], seed=seed)
    pixels = LazyImageSplit([np.zeros((*size[::-1], 3), np.uint8)], np.zeros(1, np.int32))
    with pytest.raises(ValueError, match=r"picture has .* pixels; expected no side"):
        pixels.images([0], seed=seed)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_only_the_crop_of_a_long_picture_is_resized(interpolation):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 1800, 3), dtype=np.uint8)
    split = LazyImageSplit([pixels], np.zeros(1, np.int32), Preprocessing(224, 200, interpolation=interpolation))
    whole = Image.fromarray(pixels).resize((20160, 224), Image.Resampling[interpolation.upper()])
    expected = np.asarray(whole.crop((9980, 12, 10180, 212)), np.float32)
    with bounded_memory(16 << 20):
        out = split.images([0])[0]
    got = (out * np.float32((0.229, 0.224, 0.225)) + np.float32((0.485, 0.456, 0.406))) * 255
    np.testing.assert_allclose(got, expected, atol=1.01)  # positions in the source are rounded to 32 bits
    assert np.abs(got - expected).mean() < 0.05


def test_pictures_out_of_proportion_to_their_bytes_are_refused(tmp_path):
    path = picture(tmp_path / "bomb.png", size=(6000, 6000))
    split = LazyImageSplit([path], np.zeros(1, np.int32), SMALL)
    with (
        bounded_memory(8 << 20),
        pytest.raises(ValueError, match=r"bomb.png' has 6000 x 6000 pixels; expected at most"),
    ):
        split.images([0])
    picture(path, size=(2500, 2500))
    assert split.images([0]).shape == (1, 8, 8, 3)


@pytest.mark.parametrize("content", [b"", b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_files_that_are_no_images_are_refused_by_name(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a.png' has other content \(UnidentifiedImageError.*\); expected an image"):
        LazyImageSplit([tmp_path / "a.png"], np.zeros(1, np.int32)).images([0])


def test_truncated_pictures_are_refused_by_name(tmp_path):
    path = picture(tmp_path / "a.png", size=(64, 64))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"a.png' has other content .*; expected an image"):
        LazyImageSplit([path], np.zeros(1, np.int32)).images([0])


@pytest.mark.parametrize(
    ("make", "file", "text", "words"),
    [
        (layouts.aircraft, "data/images_variant_test.txt", "3", "line '3'; expected at least 2 columns"),
        (layouts.aircraft, "data/images_variant_test.txt", "3 DC-9", "class 'DC-9'; expected one of the 2 listed"),
        (layouts.birds, "images.txt", "", r"columns ''; expected a column 'path'"),
        (layouts.birds, "images.txt", "path\turl\tspecies_id\na\tb", "line 'a b'; expected 3 columns"),
        (layouts.birds, "images.txt", "path\tspecies_id\na\tx", "class 'x'; expected a whole number from 1"),
        (layouts.pets, "annotations/test.txt", "beagle_3 0", "class '0'; expected a whole number from 1"),
        (layouts.pets, "annotations/test.txt", "beagle_3 " + "9" * 5000, "expected a whole number from 1"),
        (
            layouts.pets,
            "annotations/test.txt",
            "../../secret 1",
            r"the name '../../secret.jpg'; expected names of files",
        ),
        (layouts.food101, "meta/test.txt", "/etc/passwd", "class 'etc'; expected one of"),
        (layouts.dtd, "labels/test1.txt", "dots/..", "the name 'dots/..'"),
        (
            layouts.pets,
            "annotations/test.txt",
            b"\xff\xfe",
            r"other content \(UnicodeDecodeError.*expected text in UTF-8",
        ),
    ],
)
def test_malformed_lists_are_refused_by_name(tmp_path, make, file, text, words):
    make(tmp_path)
    (tmp_path / file).write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ValueError, match=words) as caught:
        downstream_task(make.__name__, tmp_path, allow_missing_classes=True)
    assert str(tmp_path / file) in str(caught.value)


def test_malformed_matlab_files_are_refused_by_name(tmp_path):
    layouts.flowers(tmp_path)
    path = tmp_path / "setid.mat"
    good = path.read_bytes()
    for content, words in (
        (b"", "other content"),
        (good[:-9], "an element declares"),
        (good.replace(b"tstid", b"other"), "no variable tstid"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"setid.mat' has .*{words}"):
            downstream_task("flowers", tmp_path, allow_missing_classes=True)
    for numbers, words in (([[5, 1]], "image 5; expected 1 to 4"), ([[0.5]], "expected whole numbers from 1")):
        savemat(path, {"trnid": [[1]], "valid": [[2]], "tstid": np.array(numbers)})
        with pytest.raises(ValueError, match=f"setid.mat' has .*{words}"):
            downstream_task("flowers", tmp_path, allow_missing_classes=True)


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_files_are_read_as_scipy_reads_them(tmp_path, compressed):
    rows = np.array([(1.5, 2, "a.jpg"), (3.0, 1, "bé.jpg")], dtype=[("x", "O"), ("class", "O"), ("fname", "O")])
    values = {
        "n": np.array([[2, 1, 300]]),
        "f": np.array([[1.5, 2], [3, 4]]),
        "s": "héllo",
        "rows": rows,
        "c": rows["x"],
    }
    savemat(tmp_path / "a.mat", values, do_compression=compressed)
    got = read_matlab("f", tmp_path / "a.mat", ["n", "f", "s", "rows"])
    theirs = loadmat(tmp_path / "a.mat")
    for name in ("n", "f"):
        np.testing.assert_array_equal(got[name], theirs[name])
        assert got[name].dtype == theirs[name].dtype
    assert got["s"] == "héllo" and [row["fname"] for row in got["rows"]] == ["a.jpg", "bé.jpg"]
    assert [row["x"].item() for row in got["rows"]] == [1.5, 3.0] and list(got["rows"][0]) == ["x", "class", "fname"]


def test_pickles_that_ask_for_memory_are_refused(tmp_path):
    cifar10(tmp_path)
    for content, words in (
        (b"\x80\x02}r\xff\xff\xff\x7f.", "stores object 2147483647"),
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f", "expected 9223372036854775807 bytes"),
        (b"\x80\x02)" + b"\x85" * 100_000 + b".", "nests objects 501 deep"),
    ):
        (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(content)
        with bounded_memory(16 << 20), pytest.raises(ValueError, match=rf"test_batch' has other content .*{words}"):
            downstream_task("cifar10", tmp_path, allow_missing_classes=True)


def test_names_of_the_release_before_still_work():
    pixels = np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.warns(DeprecationWarning, match="preprocessing="):
        split = LazyImageSplit(pixels, np.zeros(1, np.int32), reading=SMALL)
    with pytest.warns(DeprecationWarning, match="with_preprocessing"):
        assert split.with_reading(size=4).preprocessing.size == 4
    with pytest.warns(DeprecationWarning, match=r"LazyImageSplit.preprocessing"):
        assert split.reading is SMALL
