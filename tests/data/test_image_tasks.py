"""Lazy splits, folders of images, and the twelve downstream data sets, in layouts that the test writes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

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

SMALL = Preprocessing(resize=8, size=8)


def picture(path, value=0, size=(10, 12)):
    """A JPEG or PNG of one grey level, 10 x 12."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


def aircraft(root):
    lines(root / "data/variants.txt", ["707-320", "A 310"])
    for split, numbers in (("trainval", "12"), ("test", "34")):
        lines(root / f"data/images_variant_{split}.txt", [f"{numbers[0]} A 310", f"{numbers[1]} 707-320"])
        for number in numbers:
            picture(root / f"data/images/{number}.jpg", int(number))
    return [1, 0], [1, 0]


def birds(root):
    rows = ["url\tmd5\tpath\tspecies_id\tbb_x1"]
    for i, name in enumerate(("Crow/1.jpg", "Crow/2.jpg", "Owl/3.jpg", "Owl/4.jpg", "Owl/gone.jpg")):
        rows.append(f"http://x\t0\t{name}\t{1 + (i > 1)}\t0")
        if "gone" not in name:
            picture(root / "images" / name)
    lines(root / "images.txt", rows)
    lines(root / "test_images.txt", ["path", "Crow/2.jpg", "Owl/4.jpg"])
    return [0, 1], [0, 1]


def caltech101(root):
    for name in ("BACKGROUND_Google", "ant", "bass"):
        for i in range(31 if name == "ant" else 32):
            picture(root / f"101_ObjectCategories/{name}/image_{i + 1:04d}.jpg")
    return [0] * 30 + [1] * 30, [0, 1, 1]


def caltech256(root):
    for name in ("001.ak47", "257.clutter"):
        for i in range(61):
            picture(root / f"256_ObjectCategories/{name}/{name[:3]}_{i + 1:04d}.jpg")
    picture(root / "256_ObjectCategories/001.ak47/greg/other.jpg")
    (root / "256_ObjectCategories/001.ak47/RENAME2").write_text("no image")
    return [0] * 60 + [1] * 60, [0, 1]


def cars(root):
    dtype = [("bbox_x1", "O"), ("class", "O"), ("fname", "O")]
    for split, at in (
        ("train", root / "devkit/cars_train_annos.mat"),
        ("test", root / "cars_test_annos_withlabels.mat"),
    ):
        rows = np.array([(1, 2, "00001.jpg"), (1, 1, "00002.jpg")], dtype=dtype)
        at.parent.mkdir(parents=True, exist_ok=True)
        savemat(at, {"annotations": rows})
        for name in ("00001.jpg", "00002.jpg"):
            picture(root / f"cars_{split}" / name)
    return [1, 0], [1, 0]


def cifar10(root):
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        content = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 0]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return [1, 0] * 5, [1, 0]


def cifar100(root):
    for name in ("train", "test"):
        rows = np.zeros((2, 3074), np.uint8)
        rows[:, 0], rows[:, 1] = 7, (1, 0)
        (root / f"{name}.bin").write_bytes(rows.tobytes())
    return [1, 0], [1, 0]


def dtd(root):
    for split, names in (("train", ["dots/1.jpg"]), ("val", ["lined/2.jpg"]), ("test", ["lined/3.jpg", "dots/4.jpg"])):
        lines(root / f"labels/{split}1.txt", names)
        for name in names:
            picture(root / "images" / name)
    return [0, 1], [1, 0]


def flowers(root):
    savemat(root / "imagelabels.mat", {"labels": np.array([[2, 1, 2, 1]])})
    savemat(root / "setid.mat", {"trnid": [[1]], "valid": [[2]], "tstid": [[4, 3]]})
    for i in range(1, 5):
        picture(root / f"jpg/image_{i:05d}.jpg")
    return [1, 0], [0, 1]


def food101(root):
    lines(root / "meta/classes.txt", ["apple_pie", "beignets"])
    for split, names in (("train", ["apple_pie/1", "beignets/2"]), ("test", ["beignets/3", "apple_pie/4"])):
        lines(root / f"meta/{split}.txt", names)
        for name in names:
            picture(root / f"images/{name}.jpg")
    return [0, 1], [1, 0]


def pets(root):
    lines(root / "annotations/trainval.txt", ["Abyssinian_1 1 1 1", "beagle_2 2 2 1"])
    lines(root / "annotations/test.txt", ["beagle_3 2 2 1", "Abyssinian_4 1 1 1"])
    for name in ("Abyssinian_1", "beagle_2", "beagle_3", "Abyssinian_4"):
        picture(root / f"images/{name}.jpg")
    return [0, 1], [1, 0]


def sun397(root):
    lines(root / "ClassName.txt", ["/a/abbey", "/z/zoo/indoor"])
    for split, names in (("Training", ["/a/abbey/1.jpg"]), ("Testing", ["/z/zoo/indoor/2.jpg", "/a/abbey/3.jpg"])):
        lines(root / f"{split}_01.txt", names)
        for name in names:
            picture(root / name[1:])
    return [0], [1, 0]


MAKERS = [aircraft, birds, caltech101, caltech256, cars, cifar10, cifar100, dtd, flowers, food101, pets, sun397]


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
    with pytest.raises(ValueError, match=r"another form .it asks for builtins.print"):
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
