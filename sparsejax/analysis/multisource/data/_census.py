"""The census data of the study: one source per state, from files on disk or downloaded through folktables."""

# pandas declares unions that are too wide for its results.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsejax._checks import message
from sparsejax.analysis._frames import read_csv
from sparsejax.analysis.multisource.data._loaders import encode_census
from sparsejax.analysis.multisource.data._table import TabularDataset

if TYPE_CHECKING:
    import pandas as pd

# The 50 states and Puerto Rico, and the census's number of each, which is in the name of its file.
STATES = {
    "AK": 2, "AL": 1, "AR": 5, "AZ": 4, "CA": 6, "CO": 8, "CT": 9, "DE": 10, "FL": 12, "GA": 13, "HI": 15, "IA": 19,
    "ID": 16, "IL": 17, "IN": 18, "KS": 20, "KY": 21, "LA": 22, "MA": 25, "MD": 24, "ME": 23, "MI": 26, "MN": 27,
    "MO": 29, "MS": 28, "MT": 30, "NC": 37, "ND": 38, "NE": 31, "NH": 33, "NJ": 34, "NM": 35, "NV": 32, "NY": 36,
    "OH": 39, "OK": 40, "OR": 41, "PA": 42, "PR": 72, "RI": 44, "SC": 45, "SD": 46, "TN": 47, "TX": 48, "UT": 49,
    "VA": 51, "VT": 50, "WA": 53, "WI": 55, "WV": 54, "WY": 56,
}  # fmt: skip
_COLUMNS = ("AGEP", "COW", "SCHL", "MAR", "OCCP", "POBP", "RELP", "WKHP", "RAC1P", "SEX", "PINCP", "PWGTP")


def census(
    year: int = 2018, rows: int = 10_000, seed: int = 0, data_home: str | Path = "data"
) -> tuple[TabularDataset, np.ndarray]:
    """Read the census data of the study: one source per state, the 50 states and Puerto Rico by their abbreviation.

    Files are the person files of the American Community Survey, 1-year, ``psam_p01.csv`` (Alabama) to ``psam_p72.csv``
    (Puerto Rico), in ``data_home`` or in ``data_home/2018/1-Year``, where folktables puts them. If all are there they
    are read as they are; otherwise folktables downloads them.

    At most ``rows`` rows of a state are drawn. Then those are kept that folktables keeps for income prediction: older
    than 16, income above 100, positive hours and weight.

    Returns:
      The data set, and the state of each row.

    Raises:
      ImportError: a file is missing, and folktables is not installed.
      ValueError: a file without the columns of the survey.
    """
    import pandas as pd

    folder = Path(data_home)
    files = {state: _file(folder, year, number) for state, number in STATES.items()}
    missing = [path for path in files.values() if not path.is_file()]
    source = _folktables(year, folder, missing[0]) if missing else None
    rng = np.random.default_rng(seed)
    parts = []
    for state, path in files.items():
        table = _read(path) if source is None else source.get_data(states=[state], download=True)
        if len(table) > rows:
            table = table.iloc[rng.choice(len(table), rows, replace=False)]
        parts.append(_adults(table).assign(state=state))
    return encode_census(pd.concat(parts, ignore_index=True))


def _file(folder: Path, year: int, number: int) -> Path:
    name = f"psam_p{number:02d}.csv"
    return folder / name if (folder / name).is_file() else folder / str(year) / "1-Year" / name


def _read(path: Path) -> pd.DataFrame:
    return read_csv("census", path, _COLUMNS, _COLUMNS, usecols=lambda name: name in _COLUMNS)


def _adults(table: pd.DataFrame) -> pd.DataFrame:
    kept = (table["AGEP"] > 16) & (table["PINCP"] > 100) & (table["WKHP"] > 0) & (table["PWGTP"] >= 1)
    return table[kept]


def _folktables(year: int, folder: Path, missing: Path) -> Any:
    try:
        import folktables  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        got = f"no file {str(missing)!r} and no folktables"
        hint = "Install it: pip install folktables; or download the survey's person files."
        raise ImportError(message("census", "data_home", got, "the files of 51 states, or folktables", hint)) from error
    return folktables.ACSDataSource(str(year), "1-Year", "person", root_dir=str(folder))
