"""Loaders: from a folder of CSV files, from OpenML through scikit-learn, and from the census through folktables."""

# pandas declares unions that are too wide for its results.
# pyright: reportArgumentType=false, reportAssignmentType=false

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsejax._checks import fail
from sparsejax.analysis._frames import read_csv, refuse_missing_cells, require_columns
from sparsejax.analysis.multisource.data._table import TabularDataset, encode

if TYPE_CHECKING:
    import pandas as pd

_AGES = [15, 25, 35, 45, 55, 65, 99]
_HOURS = [0, 20, 30, 40, 99]
FILES = {
    "adult": "adult.csv",
    "compas": "compas-nonames.csv",
    "drugs": "drug_consumption.csv",
    "germancredit": "german_credit_data.csv",
}

_SCORES = (
    "Age",
    "Education",
    "Country",
    "Ethnicity",
    "Nscore",
    "Escore",
    "Oscore",
    "Ascore",
    "Cscore",
    "Impulsive",
    "SS",
)
# Protected attribute, label, and the other columns.
_COLUMNS = {
    "adult": ("gender", "income", "workclass", "education", "hours-per-week", "age", "native-country", "race"),
    "compas": (
        *("sex", "two_year_recid", "days_b_screening_arrest", "is_recid", "c_charge_degree"),
        *("score_text", "race", "age_cat", "priors_count"),
    ),
    "drugs": ("Gender", "Coke", *_SCORES),
    "germancredit": ("Sex", "Risk", "Age", "Saving accounts", "Checking account", "Duration", "Credit amount"),
    "folktables": ("SEX", "PINCP", "state", "AGEP", "COW", "SCHL", "MAR", "OCCP", "POBP", "RELP", "WKHP", "RAC1P"),
}


def load_dataset(name: str, path: str | Path) -> TabularDataset:
    """Load adult, compas, drugs or germancredit from the file that the study used.

    Args:
      name: of the data set.
      path: the file, or a folder with files of the names in `FILES`.

    Raises:
      ValueError: unknown name; or a column is missing.
      FileNotFoundError: no such file.

    Source: Iofinova et al. 2022, "FLEA", section on experiments.
    """
    if name not in FILES:
        fail("load_dataset", "name", f"value {name!r}", f"one of {', '.join(FILES)}")
    file = Path(path)
    file = file / FILES[name] if file.is_dir() else file
    if not file.is_file():
        rule = f"a file or a folder that contains {FILES[name]}"
        fail("load_dataset", "path", f"value {str(path)!r}", rule, error=FileNotFoundError)
    # Only truly empty fields and NA are missing; adult marks them with "?", which is a category.
    table = read_csv("load_dataset", file, keep_default_na=False, na_values=["NA", ""], skipinitialspace=True)
    return _encode("load_dataset", f"file {str(file)!r}", name, table)


def encode_table(name: str, table: pd.DataFrame) -> TabularDataset:
    """Encode a data frame with the columns of the study's file, for example one from another file format.

    Raises:
      ValueError: unknown name; a missing column; or a missing label or protected attribute, whose row is named.
    """
    return _encode("encode_table", "table", name, table)


def _encode(function: str, operand: str, name: str, table: pd.DataFrame) -> TabularDataset:
    encoders: dict[str, Callable[[Any], TabularDataset]] = {
        "adult": _adult,
        "compas": _compas,
        "drugs": _drugs,
        "germancredit": _germancredit,
    }
    if name not in encoders:
        fail(function, "name", f"value {name!r}", f"one of {', '.join(encoders)}")
    protected, label, *others = _COLUMNS[name]
    require_columns(function, operand, table, (protected, label, *others))
    refuse_missing_cells(function, operand, table, (protected, label))
    try:
        return encoders[name](table)
    except (TypeError, AttributeError, ValueError) as error:  # of pandas, where a column has values of another type
        fail(function, operand, f"values that cannot be encoded ({error})", f"those of {FILES[name]}")


def fetch_dataset(name: str, *, data_home: str | Path | None = None) -> TabularDataset:
    """Download adult or germancredit with scikit-learn's OpenML loader and encode it as in the study.

    adult is OpenML's data set 1590, germancredit its 31 ("credit-g"), whose columns and categories are renamed to those
    of the study's file. The study's columns of compas and drugs are not supported by this loader.

    Args:
      name: of the data set.
      data_home: folder of scikit-learn's cache.

    Raises:
      ValueError: another data set; or OpenML's table has other columns.
      OSError: no connection.
    """
    from sklearn.datasets import fetch_openml

    renamed: dict[str, tuple[int, Callable[[Any], Any]]] = {
        "adult": (1590, _adult_file),
        "germancredit": (31, _credit_file),
    }
    if name not in renamed:
        hint = "Load the others from a file with load_dataset (on the command line: --path)."
        fail("fetch_dataset", "name", f"value {name!r}", " or ".join(renamed), hint)
    number, rename = renamed[name]
    bunch: Any = fetch_openml(data_id=number, as_frame=True, data_home=data_home, parser="auto")
    try:
        table = rename(bunch.frame)
    except KeyError as error:
        fail(
            "fetch_dataset",
            "OpenML's table",
            f"no column {error}",
            f"the columns of data set {number} as first published",
        )
    return encode_table(name, table)


def _adult_file(frame: pd.DataFrame) -> Any:
    table = frame.rename(columns={"sex": "gender", "class": "income", "education-num": "educational-num"})
    text = table.select_dtypes(exclude="number").columns
    table[text] = table[text].astype(object).where(table[text].notna(), "?")
    return table


def _credit_file(frame: pd.DataFrame) -> Any:
    saving = {"<100": "little", "100<=X<500": "moderate", "500<=X<1000": "quite rich", ">=1000": "rich"}
    checking = {"<0": "little", "0<=X<200": "moderate", ">=200": "rich"}  # none, or none known, is missing
    text = frame.astype({name: str for name in ("savings_status", "checking_status", "personal_status")})
    return _frame(
        Age=frame["age"],
        Sex=np.where(text["personal_status"].str.startswith("female"), "female", "male"),
        Duration=frame["duration"],
        Risk=frame["class"].astype(str),
        **{
            "Saving accounts": text["savings_status"].map(saving),
            "Checking account": text["checking_status"].map(checking),
            "Credit amount": frame["credit_amount"],
        },
    )


def _bins(values: Any, edges: list[int]) -> Any:
    """Right-closed intervals, as text that sorts like the intervals."""
    import pandas as pd

    return pd.cut(values, edges, labels=[f"({low:02d},{high:02d}]" for low, high in itertools.pairwise(edges)])


def _frame(**columns: Any) -> Any:
    import pandas as pd

    return pd.DataFrame(columns)


def _adult(table: pd.DataFrame) -> TabularDataset:
    country = table["native-country"].where(table["native-country"] == "United-States", "Other")
    categorical = _frame(
        workclass=table["workclass"],
        education=table["education"],
        hours=_bins(table["hours-per-week"], _HOURS),
        age=_bins(table["age"], _AGES),
        country=country,
        race=table["race"],
    )
    female = (table["gender"] == "Female").to_numpy()
    rich = table["income"].str.strip(".").eq(">50K").to_numpy()
    return encode("adult", categorical, female, table[[]], rich, "female")


def _compas(table: pd.DataFrame) -> TabularDataset:
    days = table["days_b_screening_arrest"]
    keep = days.between(-30, 30) & (table["is_recid"] != -1) & (table["c_charge_degree"] != "O")
    table = table[keep & table["score_text"].notna() & (table["score_text"] != "N/A")]
    race = table["race"].replace({"Native American": "Other", "Asian": "Other"})
    categorical = _frame(charge=table["c_charge_degree"], age=table["age_cat"], race=race)
    female = (table["sex"] == "Female").to_numpy()
    return encode(
        "compas", categorical, female, table[["priors_count"]], (table["two_year_recid"] == 1).to_numpy(), "female"
    )


def _drugs(table: pd.DataFrame) -> TabularDataset:
    numeric = list(_SCORES)
    female = (table["Gender"] > 0).to_numpy()
    return encode("drugs", table[[]], female, table[numeric], (table["Coke"] != "CL0").to_numpy(), "female")


def _germancredit(table: pd.DataFrame) -> TabularDataset:
    categorical = _frame(
        age=_bins(table["Age"], _AGES), saving=table["Saving accounts"], checking=table["Checking account"]
    )
    numeric = _frame(duration=table["Duration"], amount=table["Credit amount"] / 1000)
    female = (table["Sex"] == "female").to_numpy()
    return encode("germancredit", categorical, female, numeric, (table["Risk"] == "good").to_numpy(), "female")


def encode_census(table: pd.DataFrame) -> tuple[TabularDataset, np.ndarray]:
    """Encode rows of the American Community Survey (columns of ACSIncome, and ``state``) as the study did.

    Raises:
      ValueError: a missing column; or a missing label, protected attribute or state, whose row is named.
    """
    require_columns("encode_census", "table", table, _COLUMNS["folktables"])
    refuse_missing_cells("encode_census", "table", table, ("SEX", "PINCP", "state"))
    categorical = _frame(
        age=_bins(table["AGEP"], _AGES),
        worker=table["COW"],
        school=table["SCHL"],
        marital=table["MAR"],
        occupation=table["OCCP"] // 1000,
        birthplace=np.where(table["POBP"] < 100, "USA", "other"),
        relationship=table["RELP"],
        hours=_bins(table["WKHP"], _HOURS),
        race=table["RAC1P"],
    )
    female = (table["SEX"] == 2).to_numpy()
    data = encode("folktables", categorical, female, table[[]], (table["PINCP"] > 50_000).to_numpy(), "female")
    return data, table["state"].to_numpy()
