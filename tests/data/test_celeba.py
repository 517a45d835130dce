"""The CelebA reader on a folder that the test makes, and the markers."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest

from helpers.celeba_folder import COUNTS, NAMES, make_celeba
from sparsejax.data import corner_square, grayscale, marked_samples, read_celeba_attributes


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    at = tmp_path_factory.mktemp("celeba-root")
    return at, make_celeba(at)


def test_annotations_are_joined_by_file_name(root):
    data = read_celeba_attributes(root[0])
    assert data.names == NAMES and data.labels.dtype == np.uint8
    np.testing.assert_array_equal(data.labels, root[1])
    assert [len(data.rows(split)) for split in ("train", "val", "test")] == list(COUNTS)
    assert data.rows("val")[0] == COUNTS[0] and data.files[0] == "000001.jpg"
    assert data.identities[:3].tolist() == [1, 2, 3]
    assert data.column("Young") == 2


def test_images_are_resized_cropped_and_scaled(root):
    data = read_celeba_attributes(root[0])
    rows = data.rows("train")[:6]
    centre = data.images(rows, resize=20, size=16)
    assert centre.shape == (6, 16, 16, 3) and centre.dtype == np.float32
    assert centre.min() >= -1 and centre.max() <= 1
    # 24 x 20, shorter side 20 already: the centre crop is plain slicing.
    from PIL import Image

    raw = np.asarray(Image.open(data.folder / "img_align_celeba" / data.files[rows[0]]), np.float32)
    np.testing.assert_allclose(centre[0], raw[4:20, 2:18] / 127.5 - 1, atol=1e-6)
    smiles = data.labels[rows, 1] == 1
    assert centre[smiles, :6].mean() > 0 > centre[~smiles, :6].mean()
    drawn = [data.images(rows, resize=20, size=16, seed=seed) for seed in ((1, 2), (1, 2), 3)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2]) and not np.array_equal(drawn[0], centre)
    grey = data.images(rows, resize=20, size=16, before={int(rows[1]): grayscale})
    np.testing.assert_array_equal(grey[1, ..., 0], grey[1, ..., 2])
    np.testing.assert_array_equal(grey[0], centre[0])


def test_grayscale_is_what_pillow_does():
    from PIL import Image

    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).convert("L")).astype(int)
    found = grayscale(image)
    assert found.dtype == np.uint8 and (found[..., 0] == found[..., 2]).all()
    assert np.abs(found[..., 1] - expected).max() <= 1
    np.testing.assert_allclose(grayscale(np.ones((2, 2, 3), np.float32)), 1, rtol=1e-6)
    with pytest.raises(ValueError, match=r"images has shape \(2, 2, 1\)"):
        grayscale(np.ones((2, 2, 1)))


def test_the_square_has_the_published_size_and_place():
    images = np.zeros((2, 224, 224, 3), np.float32)
    marked = corner_square(images, color=(1.0, 1.0, -1.0))
    assert (marked[:, :32, :32] == [1, 1, -1]).all() and (marked[:, 32:] == 0).all() and (marked[:, :, 32:] == 0).all()
    assert images.max() == 0 and marked.dtype == np.float32
    for options, words in (({"side": 0}, "side has value 0"), ({"color": (1.0, 2.0)}, r"color has shape \(2,\)")):
        with pytest.raises(ValueError, match=words):
            corner_square(images, **options)


def test_marked_samples_are_counted_per_class_and_repeatable():
    labels = np.random.default_rng(0).integers(0, 2, 1000)
    chosen = marked_samples(labels, 0.05, 0.95, seed=3)
    assert chosen[labels == 0].sum() == round(0.05 * (labels == 0).sum())
    assert chosen[labels == 1].sum() == round(0.95 * (labels == 1).sum())
    np.testing.assert_array_equal(chosen, marked_samples(labels, 0.05, 0.95, seed=3))
    assert not np.array_equal(chosen, marked_samples(labels, 0.05, 0.95, seed=4))
    for bad, words in (((labels + 1, 0.1, 0.1), "labels has"), ((labels, -0.1, 0.1), "negatives has value -0.1")):
        with pytest.raises(ValueError, match=words):
            marked_samples(*bad, seed=0)


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("list_attr_celeba.txt", lambda t: t.replace("92", "93", 1), "92 images; expected 93, the count"),
        ("list_attr_celeba.txt", lambda t: t.replace(" -1", "  0", 1), "and 4 values -1 or 1"),
        ("list_attr_celeba.txt", lambda t: t.replace("000002.jpg", "000001.jpg"), "an image twice"),
        ("list_attr_celeba.txt", lambda t: "x", "1 lines; expected a count"),
        ("list_eval_partition.txt", lambda t: t.replace("000092.jpg 2", "000092.jpg 7"), "split 7; expected 0, 1 or 2"),
        ("list_eval_partition.txt", lambda t: t.replace("000092.jpg", "000099.jpg"), "'000092.jpg' in one file only"),
        ("list_eval_partition.txt", lambda t: t + "000093.jpg 1\n", "'000093.jpg' in one file only"),
        ("identity_CelebA.txt", lambda t: t + "what is this\n", "expected a file name and a whole number"),
    ],
)
def test_malformed_files(root, tmp_path, file, change, words):
    (tmp_path / "celeba").mkdir()
    for name in ("list_attr_celeba.txt", "list_eval_partition.txt", "identity_CelebA.txt"):
        shutil.copy(root[0] / "celeba" / name, tmp_path / "celeba" / name)
    path = tmp_path / "celeba" / file
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=words):
        read_celeba_attributes(tmp_path)


def test_missing_files_arguments_and_packages(root, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"list_attr_celeba.*Nothing is downloaded"):
        read_celeba_attributes(tmp_path)
    data = read_celeba_attributes(root[0])
    with pytest.raises(ValueError, match="size has value 30; expected 1 to 20"):
        data.images([0], resize=20, size=30)
    with pytest.raises(ValueError, match="split has value 'valid'"):
        data.rows("valid")
    with pytest.raises(ValueError, match="name has value 'Hat'"):
        data.column("Hat")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'sparsejax\[all\]'"):
        data.images([0])
