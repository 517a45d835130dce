"""Array-likes of lists, NumPy, JAX and pandas, read by one module."""

from __future__ import annotations

import datetime
import decimal

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from sparsejax.analysis import _arrays as arrays

FORMS = {
    "list": list,
    "tuple": tuple,
    "list of NumPy scalars": lambda x: list(np.array(x)),
    "list of JAX scalars": lambda x: list(jnp.array(x)),
    "NumPy": np.array,
    "objects": lambda x: np.array(x, dtype=object),
    "masked": np.ma.array,
    "JAX": jnp.array,
    "Series": lambda x: pd.Series(x, index=range(100, 100 + len(x))),
    "Index": pd.Index,
    "categorical": lambda x: pd.Series(x).astype("category"),
    "pandas Categorical": pd.Categorical,
    "pandas array": lambda x: pd.array(x),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("values", "kind"), [([0, 1, 1], "i"), ([0.5, 1.0, 2.0], "f"), ([True, False, True], "b")])
def test_every_form_gives_the_same_numbers(form, values, kind):
    array, missing = arrays.read_array("f", "x", FORMS[form](values))
    assert array.dtype.kind == kind and array.tolist() == values and not missing.any()
    assert arrays.read_numbers("f", "x", FORMS[form](values)).dtype == np.float64


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "int8", "uint8", "int4"])
def test_dtypes_of_jax(dtype):
    assert arrays.read_numbers("f", "x", jnp.ones(3, dtype)).tolist() == [1.0, 1.0, 1.0]
    assert arrays.read_number("f", "x", jnp.ones((), dtype)) == 1.0


MISSING = {
    "NaN in a list": [1.0, float("nan"), 0.0],
    "None in a list": [1, None, 0],
    "NA in a list": [1, pd.NA, 0],
    "masked entry in a list": [1, np.ma.masked, 0],
    "masked array": np.ma.array([1, 5, 0], mask=[False, True, False]),
    "objects": np.array([1, None, 0], dtype=object),
    "Int64": pd.Series([1, None, 0], dtype="Int64"),
    "Float32": pd.Series([1, None, 0], dtype="Float32"),
    "boolean": pd.Series([True, None, False], dtype="boolean"),
    "categorical": pd.Series([1, None, 0]).astype("category"),
    "JAX": jnp.array([1.0, jnp.nan, 0.0]),
}


@pytest.mark.parametrize("form", MISSING)
def test_missing_numbers_are_nan_and_marked(form):
    array, missing = arrays.read_array("f", "x", MISSING[form])
    assert missing.tolist() == [False, True, False]
    np.testing.assert_array_equal(arrays.read_numbers("f", "x", MISSING[form]), [1.0, np.nan, 0.0])
    assert np.isnan(array[1])
    with pytest.raises(ValueError, match=r"f: x has a missing value at row 1; expected a value"):
        arrays.read_categories("f", "x", MISSING[form])


TEXT_MISSING = {
    "NaN in a list": ["F", float("nan"), "M"],
    "None in a list": ["F", None, "M"],
    "NA in a list": ["F", pd.NA, "M"],
    "text that NumPy made of NaN": np.array(["F", float("nan"), "M"]),
    "objects": np.array(["F", np.nan, "M"], dtype=object),
    "NumPy strings": np.array(["F", np.nan, "M"], dtype=np.dtypes.StringDType(na_object=np.nan)),
    "masked": np.ma.array(["F", "X", "M"], mask=[False, True, False]),
    "Series": pd.Series(["F", None, "M"]),
    "string": pd.Series(["F", None, "M"], dtype="string"),
    "object": pd.Series(["F", pd.NA, "M"], dtype=object),
    "categorical": pd.Series(["F", None, "M"]).astype("category"),
    "dates": pd.Series(["2020-01-01", None, "2020-01-02"], dtype="datetime64[ns]"),
}


@pytest.mark.parametrize("form", TEXT_MISSING)
def test_missing_text_is_an_error_that_names_the_row(form):
    with pytest.raises(ValueError, match=r"f: x has a missing value at row 1; expected a value for every sample"):
        arrays.read_categories("f", "x", TEXT_MISSING[form])


def test_categories():
    assert arrays.read_categories("f", "x", pd.Categorical(["b", "a"])).tolist() == ["b", "a"]
    assert arrays.read_categories("f", "x", [b"b", b"a"]).tolist() == ["b", "a"]
    assert arrays.read_categories("f", "x", np.array([b"b", b"a"])).tolist() == ["b", "a"]
    assert arrays.read_categories("f", "x", [0, "unknown", 1]).tolist() == ["0", "unknown", "1"]
    assert arrays.read_categories("f", "x", [True, False]).dtype == bool
    assert arrays.read_categories("f", "x", np.array([2**62 + 1, 2**62])).tolist() == [2**62 + 1, 2**62]
    assert arrays.read_categories("f", "x", [datetime.date(2020, 1, 2)]).tolist() == ["2020-01-02"]
    assert arrays.read_categories("f", "x", np.array(["None", "none"])).tolist() == ["None", "none"]
    for values, words in (
        ([1, "1"], "values 1 and '1'; expected values of one type"),
        ([0.5, 1.0], "fraction 0.5 at row 0"),
        ([np.inf, 1.0], "fraction inf at row 0"),
        ([1j, 2j], "dtype complex128"),
        ([[1, 2]], r"shape \(1, 2\)"),
        ([], r"shape \(0,\)"),
        (3, r"shape \(\)"),
    ):
        with pytest.raises(ValueError, match=words):
            arrays.read_categories("f", "x", values)


def test_frames_and_lists_of_frames():
    frame = pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [0.5, 2.0]}, index=[7, 3])
    np.testing.assert_array_equal(arrays.read_numbers("f", "x", frame), [[1, 0.5], [np.nan, 2]])
    np.testing.assert_array_equal(arrays.read_numbers("f", "x", [frame, frame])[1], [[1, 0.5], [np.nan, 2]])
    masked = np.ma.array([[1, 2], [3, 4]], mask=[[0, 0], [1, 0]])
    assert np.isnan(arrays.read_numbers("f", "x", [masked, masked])[:, 1, 0]).all()
    with pytest.raises(ValueError, match="rows of different lengths"):
        arrays.read_numbers("f", "x", [[1], [1, 2]])
    with pytest.raises(ValueError, match="expected one shape"):
        arrays.read_numbers("f", "x", [pd.Series([1]), pd.Series([1, 2])])


def test_columns_have_different_names():
    columns = arrays.read_columns("f", "g", pd.DataFrame({"sex": ["F", "M"], 1: [0, 1]}))
    assert list(columns) == ["sex", "1"] and list(columns["sex"]) == ["F", "M"]
    assert list(arrays.read_columns("f", "g", pd.Series([1, 2], name="sex"))) == ["group 0"]
    assert list(arrays.read_columns("f", "g", [[1, "x"], [2, "y"]], ["a", "b"])) == ["a", "b"]
    twice = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(ValueError, match="names of g has 1 different names; expected 2"):
        arrays.read_columns("f", "g", twice)
    with pytest.raises(ValueError, match="1 different names; expected 2"):
        arrays.read_columns("f", "g", {1: [0], "1": [1]})
    with pytest.raises(ValueError, match=r"names of g has a missing value at row 1"):
        arrays.read_columns("f", "g", pd.DataFrame([[1, 2]], columns=["a", None]))


@pytest.mark.parametrize(
    "value", [0.5, np.float32(0.5), np.float64(0.5), np.array(0.5), jnp.float32(0.5), jnp.bfloat16(0.5)]
)
def test_numbers_are_python_numpy_or_jax_scalars(value):
    assert type(arrays.read_number("f", "x", value, 0, 1)) is float
    assert arrays.read_number("f", "x", value, 0, 1) == 0.5


@pytest.mark.parametrize("value", [float("nan"), None, pd.NA, pd.NaT, "0.5", [0.5], 1.5, jnp.float32(jnp.nan), 1j])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match=r"f: x has value .*; expected a number from 0 to 1"):
        arrays.read_number("f", "x", value, 0, 1)


def test_whole_numbers():
    assert [arrays.read_integer("f", "x", v, 0, 9) for v in (2, np.int8(2), jnp.int32(2), 2.0)] == [2] * 4
    with pytest.raises(ValueError, match=r"value 2\.5; expected a whole number"):
        arrays.read_integer("f", "x", 2.5, 0, 9)


def test_missing_entries():
    for value in (None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT"), decimal.Decimal("NaN")):
        assert arrays.is_missing(value)
    for value in (0, "", "nan", np.zeros(2), jnp.float32(1), [], object()):
        assert not arrays.is_missing(value)
