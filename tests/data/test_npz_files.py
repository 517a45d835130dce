"""NumPy archives: what savez writes is read, and headers that do not match their data are refused."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from helpers.untrusted_files import bounded_memory
from sparsejax._npz import read_npz

ARRAYS = {
    "plain": np.arange(12.0).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "text": np.array(["x", "yy"]),
    "empty": np.zeros((0, 3)),
    "scalar": np.float32(3),
    "zeros": np.zeros(3_000_000, bool),
    "dates": np.array(["2020-01-01"], "M8[D]"),
    "records": np.array([("a", 1)], dtype=[("name", "U3"), ("count", "i8")]),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_read_as_they_were_saved(tmp_path, save):
    save(tmp_path / "a.npz", **ARRAYS)
    got = read_npz("bias", tmp_path / "a.npz")
    assert list(got) == list(ARRAYS)
    for name, expected in ARRAYS.items():
        np.testing.assert_array_equal(got[name], expected)
        assert got[name].dtype == expected.dtype and got[name].flags.writeable


def archive(path, header: bytes, data: bytes = b"", compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as file:
        length = len(header).to_bytes(2, "little")
        file.writestr("x.npy", b"\x93NUMPY\x01\x00" + length + header + data)


def describe(shape: str, descr: str = "'<f4'") -> bytes:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (describe("(1099511627776,)"), "'x.npy' declares 4398046511104 bytes and has 8"),
        (describe("(3,)"), "declares 12 bytes and has 8"),
        (describe("(1,)"), "declares 4 bytes and has 8"),
        (describe("(-2,)"), r"shape \(-2,\)"),
        (describe("(0, 1099511627776, 1048576)"), r"shape \(0, 1099511627776, 1048576\)"),
        (describe("(" + "1," * 40 + "2)"), r"shape \(1, 1"),
        (describe("(1099511627776,)", "'|S0'"), "dtype"),
        (describe("(1,)", "'|O'"), "dtype object"),
        (describe("(1,)", "'x'"), "descr"),
        (b"{", "other content"),
        (b"[" * 5000, "other content"),
    ],
)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_headers_that_do_not_match_are_refused_by_name(tmp_path, header, words, compression):
    archive(tmp_path / "bad.npz", header, bytes(0 if b"(0," in header else 8), compression)
    with bounded_memory(8 << 20), pytest.raises(ValueError, match=words) as caught:
        read_npz("bias", tmp_path / "bad.npz")
    text = str(caught.value)
    assert text.startswith(f"bias: file '{tmp_path / 'bad.npz'}' has other content") and "\n" not in text


def test_damaged_archives_are_refused_by_name(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.arange(1000))
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[100] ^= 1
    single = io.BytesIO()
    np.save(single, np.arange(3))
    for content in (b"", b"PK", good[:-30], good[:100], bytes(flipped), single.getvalue()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"bias: file .*a\.npz' has other content .*; expected an \.npz archive"):
            read_npz("bias", path)
    with pytest.raises(FileNotFoundError, match="expected an existing file"):
        read_npz("bias", tmp_path / "none.npz")
