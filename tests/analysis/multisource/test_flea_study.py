"""The study's tables, plots, comparison, command line, and loaders."""

from __future__ import annotations

import json

import matplotlib
import numpy as np
import pandas as pd
import pytest

from sparsejax import cli
from sparsejax.analysis import multisource as ms

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def results():
    """Made-up results: the value is known for each adversary and seed."""
    rows = []
    for method, offset in (("oracle", 0.0), ("naive", 0.1), ("flea", 0.02)):
        for number, adversary in enumerate(ms.ADVERSARIES):
            for seed in range(2):
                shift = 0.0 if method == "oracle" and adversary == "none" else offset * number
                for metric, value in (("accuracy", 0.9 - shift / 10), ("dp_violation", 0.1 + shift / 10)):
                    row = {"dataset": "toy", "n_sources": 5, "n_malicious": 2, "classifier": "linear"}
                    row |= {"adversary": adversary, "seed": seed, "learner": "reg", "method": method}
                    rows.append({**row, "metric": metric, "value": value + 0.01 * seed})
    return pd.DataFrame(rows)


def test_worst_case_is_taken_for_each_seed(results):
    worst = ms.worst_case(results).set_index(["method", "metric", "seed"])["value"]
    assert worst["naive", "accuracy", 0] == pytest.approx(0.8) and worst["naive", "accuracy", 1] == pytest.approx(0.81)
    assert worst["naive", "dp_violation", 1] == pytest.approx(0.21)
    assert worst["oracle", "accuracy", 0] == pytest.approx(0.9)
    assert ms.worst_case(results[results["adversary"] != "random"]).empty


def test_table_is_that_of_the_paper(results):
    table = ms.results_table(ms.summarise(results))
    assert table.loc[("toy", 5, 2, "linear", "reg"), "naive"] == "80.5±0.5 / 20.5±0.5"
    with pytest.raises(ValueError, match="results_table: adversary has value 'swap'"):
        ms.results_table(ms.summarise(results), "swap")


def test_published_worst_case_reads_like_ours(shared_data):
    published = pd.read_csv(shared_data.parent / "spec" / "flea-results.csv")
    row = ms.results_table(published).loc[("germancredit", 5, 2, "linear", "reg")]
    assert row["flea"] == "65.7±2.6 / 6.6±4.0" and row["naive"] == "58.0±4.0 / 21.3±5.3"


def test_comparison_counts_two_standard_errors(results):
    ours = ms.summarise(results)
    assert ms.compare_published(results, ours)["agrees"].all()
    # std 0.005 and two seeds on both sides: two standard errors are 2 sqrt(2 * 0.005^2 / 2) = 0.01
    for shift, agrees in ((0.009, True), (0.011, False)):
        found = ms.compare_published(results, ours.assign(mean=ours["mean"] + shift))
        assert (found["agrees"] == agrees).all() and found["two_se"].to_numpy() == pytest.approx(0.01)
    assert ms.agreement(found).loc[("toy", "linear", "flea"), "accuracy"] == f"0 of {len(ms.ADVERSARIES) + 1}"
    with pytest.raises(ValueError, match="published has no column 'std'"):
        ms.compare_published(results, ours.drop(columns="std"))


def test_bars_have_the_heights_of_the_summary(results):
    figure = ms.plot_bars(ms.summarise(results), "toy", "reg")
    above, below = figure.axes
    heights = {bars.get_label(): [bar.get_height() for bar in bars] for bars in above.containers if len(bars) == 11}
    assert heights["naive"][10] == pytest.approx(0.805) and set(heights) == {"naive", "flea"}
    fairness = [[bar.get_height() for bar in bars] for bars in below.containers if len(bars) == 11]
    assert fairness[0][10] == pytest.approx(1 - 0.205)
    assert [label.get_text() for label in below.get_xticklabels()] == list(ms.PAPER_LABELS.values())
    with pytest.raises(ValueError, match="no rows for toy, adv, linear"):
        ms.plot_bars(ms.summarise(results), "toy", "adv")


def test_the_axes_of_bars_span_what_is_drawn(results):
    summary = ms.summarise(results)
    for ax in ms.plot_bars(summary, "toy", "reg").axes:
        bars = [bar.get_height() for bars in ax.containers if len(bars) == 11 for bar in bars]
        lines = [line.get_ydata()[0] for line in ax.lines if len(line.get_xdata()) == 2]
        low, high = ax.get_ylim()
        assert low < min(bars + lines) and high > max(bars + lines)
        assert max(bars + lines) - min(bars + lines) > 0.7 * (high - low)
    empty = summary.assign(mean=np.nan, std=np.nan)
    assert ms.plot_bars(empty, "toy", "reg").axes[0].get_ylim() == (0.0, 1.0)


def test_heat_map_marks_sources():
    ax = ms.plot_scores(np.eye(3), list("abc"), ["b"])
    assert [tick.label1.get_color() for tick in ax.get_xaxis().get_major_ticks()] == ["black", "red", "black"]
    with pytest.raises(ValueError, match=r"plot_scores: scores has shape \(3, 2\)"):
        ms.plot_scores(np.zeros((3, 2)))


def run(*words):
    return cli.main(["multisource", *map(str, words)])


def test_command_runs_writes_resumes_and_compares(shared_data, tmp_path, capsys):
    words = [
        "run",
        "--data",
        "germancredit",
        "--path",
        shared_data / "flea",
        "--adversary",
        "flip#target",
        "--seeds",
        1,
    ]
    words += ["--learner", "none", "--method", "oracle", "naive", "hterm", "--out", tmp_path]
    assert run(*words) == 0
    assert "flip#target" in capsys.readouterr().out
    assert "flip#target" in (tmp_path / "tables.txt").read_text()
    assert (tmp_path / "germancredit-linear-none.png").stat().st_size > 5000
    assert len(pd.read_csv(tmp_path / "results.csv")["method"].unique()) == 3
    (cell,) = tmp_path.glob("*.json")
    written = cell.stat().st_mtime_ns
    assert run(*words, "--json") == 0 and cell.stat().st_mtime_ns == written
    shown = pd.DataFrame(json.loads(capsys.readouterr().out))
    assert set(shown.columns) == set(pd.read_csv(tmp_path / "summary.csv").columns)

    published = shared_data.parent / "spec" / "flea-results.csv"
    assert run("compare", tmp_path, "--published", published, "--out", tmp_path / "apart.csv") == 0
    assert "means agree within two standard errors" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "apart.csv")
    assert set(table["method"]) == {"naive", "hterm"}  # oracle is published without an adversary only
    assert run("compare", tmp_path, "--published", published, "--method", "naive", "--json") == 0
    assert {row["method"] for row in json.loads(capsys.readouterr().out)} == {"naive"}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--data", "iris", "--path", "."], "load_dataset: name has value 'iris'"),
        (["--data", "adult", "--path", "nowhere"], "path has value 'nowhere'"),
        (["--data", "compas"], "Load the others from a file with load_dataset"),
        (["--data", "folktables"], "no folktables"),
    ],
)
def test_user_errors_are_one_line(tmp_path, capsys, words, text):
    assert run("run", *words, "--out", tmp_path) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and text in error


def test_more_user_errors(shared_data, tmp_path, capsys):
    known = ["run", "--data", "germancredit", "--path", shared_data / "flea", "--out", tmp_path]
    for words, text in (
        (["--adversary", "swap"], "adversaries has value 'swap'"),
        (["--learner", "guess"], "learners has value 'guess'"),
        (["-n", 5, "-N", 3], "n_malicious has value 3; expected less than half of 5"),
    ):
        assert run(*known, *words) == 2 and text in capsys.readouterr().err
    assert run("compare", tmp_path / "absent", "--published", tmp_path) == 2


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [
        ("published.csv", None, "path has value '{}'; expected an existing CSV file"),
        ("published.csv", b"", "file '{}' has no readable table"),
        ("published.csv", b"\xff\xfe\xfd", "file '{}' has no readable table"),
        ("published.csv", b"dataset,n_sources,n_malicous\n", "file '{}' has no column 'n_malicious',"),
        ("published.csv", b"dataset,n_sources,n_malicous\n", "Did you mean 'n_malicous' for 'n_malicious'?"),
        ("results.csv", None, "path has value '{}'; expected an existing CSV file"),
        ("results.csv", b"dataset,method,metric\n", "file '{}' has no column 'n_sources',"),
        ("results.csv", "text", "file '{}' has 'high' in row 3 of column 'value'; expected numbers"),
    ],
)
def test_files_that_cannot_be_compared_are_named(results, tmp_path, capsys, file, content, text):
    results.to_csv(tmp_path / "results.csv", index=False)
    ms.summarise(results).to_csv(tmp_path / "published.csv", index=False)
    if content is None:
        (tmp_path / file).unlink()
    elif content == "text":
        values = results["value"].astype(object)
        values[3] = "high"
        results.assign(value=values).to_csv(tmp_path / file, index=False)
    else:
        (tmp_path / file).write_bytes(content)
    assert run("compare", tmp_path, "--published", tmp_path / "published.csv") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and text.format(tmp_path / file) in error


def test_the_nearest_name_is_offered(results, shared_data, tmp_path, capsys):
    results.to_csv(tmp_path / "results.csv", index=False)
    ms.summarise(results).to_csv(tmp_path / "published.csv", index=False)
    compare = ["compare", tmp_path, "--published", tmp_path / "published.csv"]
    table = pd.read_csv(shared_data / "flea" / "german_credit_data.csv")
    table.rename(columns={"Risk": "Risks"}).to_csv(tmp_path / "credit.csv", index=False)
    study = ["run", "--data", "germancredit", "--path", tmp_path / "credit.csv", "--out", tmp_path / "out"]
    for words, text in (
        (
            [*compare, "--metric", "acuracy"],
            "--metric has value 'acuracy'; expected one of accuracy, dp_violation.",
        ),
        ([*compare, "--method", "fleas"], "Did you mean 'flea'?"),
        (study, f"file '{tmp_path / 'credit.csv'}' has no column 'Risk'"),
        (study, "Did you mean 'Risks' for 'Risk'?"),
    ):
        assert run(*words) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and text in error
    assert run(*compare) == 0


def test_source_labels_of_the_caller_are_used(tmp_path):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=(200, 2)), np.arange(200) % 2])
    y = (X[:, 0] + rng.normal(size=200) > 0).astype(int)
    data = ms.TabularDataset("toy", X, y, X[:, 2].astype(int), 2, ("p", "q", "a"))
    options = {"adversaries": ["flip#target"], "learners": ["none"], "methods": ["oracle"], "seeds": 1}
    found = ms.run_study(data, tmp_path, source=np.repeat(["x", "y", "z"], [50, 50, 100]), n_malicious=1, **options)
    assert set(found["n_sources"]) == {3}


def test_openml_tables_are_encoded_like_the_files(shared_data, monkeypatch):
    adult = pd.read_csv(shared_data / "flea" / "adult.csv", keep_default_na=False)
    adult = adult.rename(columns={"gender": "sex", "income": "class", "educational-num": "education-num"})
    for name in ("workclass", "sex", "class", "race", "education", "native-country"):
        adult[name] = adult[name].where(adult[name] != "?").astype("category")
    credit = pd.read_csv(shared_data / "flea" / "german_credit_data.csv", keep_default_na=False)
    saving = {"little": "<100", "moderate": "100<=X<500", "quite rich": "500<=X<1000", "rich": ">=1000"}
    checking = {"little": "<0", "moderate": "0<=X<200", "rich": ">=200", "NA": "no checking"}
    frame = pd.DataFrame(
        {
            "checking_status": credit["Checking account"].map(checking).astype("category"),
            "savings_status": credit["Saving accounts"].map(saving | {"NA": "no known savings"}).astype("category"),
            "personal_status": credit["Sex"].map({"female": "female div/dep/mar", "male": "male single"}),
            "age": credit["Age"],
            "duration": credit["Duration"],
            "credit_amount": credit["Credit amount"],
            "class": credit["Risk"].astype("category"),
        }
    )
    tables = {1590: adult, 31: frame}

    class Bunch:
        def __init__(self, frame):
            self.frame = frame

    monkeypatch.setattr("sklearn.datasets.fetch_openml", lambda data_id, **options: Bunch(tables[data_id].copy()))
    for name in ("adult", "germancredit"):
        fetched, loaded = ms.fetch_dataset(name), ms.load_dataset(name, shared_data / "flea")
        assert fetched.columns == loaded.columns
        for field in ("X", "y", "a"):
            np.testing.assert_array_equal(getattr(fetched, field), getattr(loaded, field))
    tables[31] = frame.drop(columns="age")
    with pytest.raises(ValueError, match="OpenML's table has no column 'age'"):
        ms.fetch_dataset("germancredit")
    with pytest.raises(ValueError, match="fetch_dataset: name has value 'drugs'"):
        ms.fetch_dataset("drugs")


def test_census_rows_are_encoded():
    table = pd.DataFrame({name: [1.0, 2.0] for name in ("COW", "SCHL", "MAR", "RELP", "RAC1P")})
    table = table.assign(AGEP=[20, 70], OCCP=[1050.0, 9000.0], POBP=[36, 200], WKHP=[15, 45], SEX=[1, 2])
    data, state = ms.encode_census(table.assign(PINCP=[60_000, 10_000], state=["AL", "PR"]))
    assert data.y.tolist() == [1, 0] and data.a.tolist() == [0, 1] and state.tolist() == ["AL", "PR"]
    assert data.X[0].tolist() == [0.0] * data.X.shape[1] and data.columns[data.protected] == "female"
