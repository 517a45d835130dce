"""The tables of the FLEA study as features, labels and a protected attribute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sparsejax._checks import fail

if TYPE_CHECKING:
    pass


class TabularDataset(NamedTuple):
    """One table, encoded.

    Attributes:
      name: of the data set.
      X: features with the protected attribute as one column, float64[n, d].
      y: labels, int[n], 1 is the favourable outcome.
      a: protected attribute, int[n], equal to ``X[:, protected]``.
      protected: position of the attribute among the columns.
      columns: names of the columns of X.
    """

    name: str
    X: np.ndarray
    y: np.ndarray
    a: np.ndarray
    protected: int
    columns: tuple[str, ...]

    def split(self, seed: int, test_size: float = 0.2) -> tuple[TabularDataset, TabularDataset]:
        """Split into training and test part as scikit-learn's ``train_test_split(random_state=seed)`` does."""
        from sklearn.model_selection import train_test_split

        rows = train_test_split(np.arange(len(self.y)), test_size=test_size, random_state=seed)
        train, test = (self._replace(X=self.X[r], y=self.y[r], a=self.a[r]) for r in rows)
        return train, test


def encode(
    name: str, categorical: Any, protected: np.ndarray, numeric: Any, target: np.ndarray, label: str
) -> TabularDataset:
    """Encode as in the study: one-hot with the first category dropped, the attribute, then the numbers, unscaled.

    Args:
      name: of the data set.
      categorical: data frame; categories are those of the whole table, sorted; a missing value is a category.
      protected: bool[n].
      numeric: data frame.
      target: bool[n].
      label: of the protected column.
    """
    import pandas as pd

    text = categorical.astype(object).where(categorical.notna(), "NA").astype(str)
    # get_dummies refuses a table without columns.
    one_hot = pd.get_dummies(text, drop_first=True, dtype=float) if text.shape[1] else text
    table = pd.concat([one_hot, pd.DataFrame({label: protected.astype(float)}, index=text.index), numeric], axis=1)
    X = table.to_numpy(np.float64)
    return TabularDataset(
        name, X, target.astype(int), protected.astype(int), one_hot.shape[1], tuple(map(str, table.columns))
    )


def assign_sources(rows: int, n_sources: int) -> np.ndarray:
    """Return the source of each row: consecutive blocks of equal size; the first ones have a row more if needed.

    Raises:
      ValueError: fewer rows than sources, or no source.

    >>> assign_sources(7, 3)
    array([0, 0, 0, 1, 1, 2, 2])
    """
    if not 1 <= n_sources <= rows:
        fail("assign_sources", "n_sources", f"value {n_sources}", f"1 to {rows}, the number of rows")
    return np.repeat(np.arange(n_sources), [len(part) for part in np.array_split(np.arange(rows), n_sources)])
