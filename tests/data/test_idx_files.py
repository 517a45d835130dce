"""IDX files and folders of them, real and hand-made."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from helpers.untrusted_files import bounded_memory
from sparsejax.data import idx_dataset, load, read_idx

CODES = {"uint8": 8, "int8": 9, "int16": 11, "int32": 12, "float32": 13, "float64": 14}


def encode(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, CODES[array.dtype.name], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_pair(folder, prefix: str, count: int, *, compress: bool = False, shift: int = 0) -> np.ndarray:
    """Write ``count`` images whose pixels are their number plus ``shift``; return the labels."""
    labels = (np.arange(count) % 3).astype(np.uint8)
    pixels = (np.arange(count) + shift).astype(np.uint8)
    images = np.broadcast_to(pixels[:, None, None], (count, 4, 5)).copy()
    suffix = ".gz" if compress else ""
    pack = gzip.compress if compress else bytes
    (folder / f"{prefix}images-idx3-ubyte{suffix}").write_bytes(pack(encode(images)))
    (folder / f"{prefix}labels-idx1-ubyte{suffix}").write_bytes(pack(encode(labels)))
    return labels


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("compress", [False, True])
def test_idx_reads_every_type(tmp_path, name, compress):
    array = np.array([[1, 2, 3], [-4 if name != "uint8" else 4, 5, 100]]).astype(name)
    # The name says nothing about compression: the content decides.
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(encode(array)) if compress else encode(array))
    got = read_idx(path)
    assert got.dtype == array.dtype and got.dtype.isnative and got.flags.writeable
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize("shape", [(0,), (0, 4, 4), (3, 0)])
def test_idx_reads_empty_arrays(tmp_path, shape):
    (tmp_path / "file").write_bytes(encode(np.zeros(shape, np.uint8)))
    assert read_idx(tmp_path / "file").shape == shape


GOOD = encode(np.arange(6, dtype=np.int16).reshape(2, 3))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "first bytes absent"),
        (GOOD[:3], "first bytes 00 00 0b"),
        (b"\x01" + GOOD[1:], "first bytes 01 00 0b 02"),
        (b"\x00\x00\x0a\x02" + GOOD[4:], "expected 00 00, a type code"),
        (GOOD[:10], "10 bytes; expected a header of 12 for 2 axes"),
        (GOOD[:-1], r"23 bytes; expected 24 for int16\[2, 3\]"),
        (GOOD + b"\x00", "25 bytes; expected 24"),
        (gzip.compress(GOOD + b"\x00", mtime=0), "more than 24 bytes; expected 24"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, "16 bytes; expected"),
        (gzip.compress(GOOD, mtime=0)[:-6], "other content .*expected an intact gzip file"),
        (b"\x00\x00\x08\xff" + b"\0\0\0\1" * 255 + b"x", "255 axes; expected at most 32"),
        (b"\x00\x00\x08\x04" + b"\0\0\0\0" + b"\xff" * 12, "fewer than 2.48 elements"),
        (gzip.compress(b"\x00\x00\x0e\x02" + b"\xff" * 8, mtime=0), "bytes, compressed; expected"),
        (b"\x1f\x8b\x08 not gzip", "other content .*expected an intact gzip file"),
        (gzip.compress(GOOD[:-1], mtime=0), "23 bytes; expected 24"),
    ],
)
def test_idx_refuses_malformed_files(tmp_path, content, words):
    path = tmp_path / "bad"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        read_idx(path)
    assert str(caught.value).startswith("read_idx: file ") and str(path) in str(caught.value)


def test_no_more_of_a_gzip_file_is_read_than_its_header_declares(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x02" + bytes(100 << 20), 1))
    with bounded_memory(16 << 20), pytest.raises(ValueError, match=r"bomb.gz' has more than 10 bytes; expected 10"):
        read_idx(path)


def test_idx_refuses_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"read_idx: path has value .* expected an existing file"):
        read_idx(tmp_path / "none")


@pytest.mark.parametrize("test_prefix", ["t10k-", "test-"])
def test_folder_with_two_pairs_keeps_their_split(tmp_path, test_prefix):
    train = write_pair(tmp_path, "train-", 10)
    test = write_pair(tmp_path, test_prefix, 4, compress=True, shift=100)
    data = idx_dataset(tmp_path)
    np.testing.assert_array_equal(data.train_labels, train)
    np.testing.assert_array_equal(data.test_labels, test)
    np.testing.assert_array_equal(data.test_images[:, 0, 0, 0], np.float32(np.arange(100, 104)) / 255)
    assert data.image_shape == (4, 5, 1) and data.num_classes == 3 and data.name == tmp_path.name


def test_folder_with_one_pair_is_cut_in_file_order(tmp_path):
    labels = write_pair(tmp_path, "t10k-", 11)
    data = idx_dataset(tmp_path)
    np.testing.assert_array_equal(data.train_labels, labels[:8])
    np.testing.assert_array_equal(data.test_labels, labels[8:])
    np.testing.assert_array_equal(data.test_images[:, 0, 0, 0], np.float32(np.arange(8, 11)) / 255)


def test_folder_with_both_forms_reads_the_uncompressed_file(tmp_path):
    write_pair(tmp_path, "t10k-", 10, compress=True)
    for path in tmp_path.glob("*.gz"):
        path.write_bytes(b"not read")
    write_pair(tmp_path, "t10k-", 10)
    assert len(idx_dataset(tmp_path).train_labels) == 8


def test_folder_accepts_names_with_a_dot(tmp_path):
    write_pair(tmp_path, "t10k-", 10)
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert len(idx_dataset(tmp_path).test_labels) == 2


def test_folder_refuses_a_count_mismatch(tmp_path):
    write_pair(tmp_path, "t10k-", 10)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(encode(np.zeros(9, np.uint8)))
    words = "9 labels; expected 10, as many as t10k-images-idx3-ubyte has images"
    with pytest.raises(ValueError, match=words):
        idx_dataset(tmp_path)


def test_folder_refuses_a_file_without_partner(tmp_path):
    write_pair(tmp_path, "train-", 10)
    write_pair(tmp_path, "t10k-", 10)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match="no partner for t10k-images-idx3-ubyte"):
        idx_dataset(tmp_path)


def test_folder_refuses_other_layouts(tmp_path):
    for prefix in ("train-", "t10k-", "extra-"):
        write_pair(tmp_path, prefix, 10)
    with pytest.raises(ValueError, match=r"pairs .*'extra-'"):
        idx_dataset(tmp_path)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("t10k-images-idx3-ubyte", np.zeros((10, 4), np.uint8)),
        ("t10k-images-idx3-ubyte", np.zeros((10, 4, 5), np.float32)),
        ("t10k-labels-idx1-ubyte", np.zeros((10, 1), np.uint8)),
    ],
)
def test_folder_refuses_other_ranks_and_types(tmp_path, name, array):
    write_pair(tmp_path, "t10k-", 10)
    (tmp_path / name).write_bytes(encode(array))
    with pytest.raises(ValueError, match=f"{name}.* has {array.ndim} axes of {array.dtype}"):
        idx_dataset(tmp_path)


def test_folder_refuses_splits_of_different_image_size(tmp_path):
    write_pair(tmp_path, "train-", 10)
    write_pair(tmp_path, "t10k-", 10)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(encode(np.zeros((10, 6, 6), np.uint8)))
    with pytest.raises(ValueError, match="as in train_images"):
        idx_dataset(tmp_path)


@pytest.mark.parametrize("count", [0, 1])
def test_folder_refuses_too_few_images_to_split(tmp_path, count):
    write_pair(tmp_path, "t10k-", count)
    with pytest.raises(ValueError, match="nothing empty"):
        idx_dataset(tmp_path)


def test_folder_missing_or_without_idx_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no IDX files"):
        idx_dataset(tmp_path)
    with pytest.raises(FileNotFoundError, match="an existing folder"):
        load(f"idx:{tmp_path / 'none'}")


def test_mnist_10k(shared_data):
    data = load(f"idx:{shared_data / 'mnist10k'}")
    assert data.train_images.shape == (8000, 28, 28, 1) and data.test_images.shape == (2000, 28, 28, 1)
    assert data.num_classes == 10 and data.name == "mnist10k"
    assert data.train_images.min() == 0 and data.train_images.max() == 1
    # MNIST's own test set starts with 7, 2, 1, 0, 4 and ends with 4, 5, 6.
    assert data.train_labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert data.test_labels[-3:].tolist() == [4, 5, 6]
    raw = read_idx(shared_data / "mnist10k" / "t10k-images-idx3-ubyte.gz")
    np.testing.assert_array_equal(data.test_images[0, :, :, 0], raw[8000] / np.float32(255))
