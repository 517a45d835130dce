"""The user's own table: reading it, filtering its sources, and running the study on it."""

from __future__ import annotations

import json

import matplotlib
import numpy as np
import pandas as pd
import pytest

from sparsejax import cli
from sparsejax.analysis import multisource as ms
from sparsejax.analysis.multisource.data._census import STATES

matplotlib.use("Agg")
ROLES = {"target": "ill", "sensitive": "sex", "source": "site"}
WORDS = ["--target", "ill", "--sensitive", "sex", "--source", "site"]


def run(*words):
    return cli.main(["multisource", *map(str, words)])


@pytest.fixture(scope="module")
def frame():
    """Three hospitals; the labels of C are flipped."""
    rng = np.random.default_rng(0)
    n = 240
    age, sex = rng.normal(50, 10, n), rng.choice(["f", "m"], n)
    ill = (age + 5 * (sex == "m") + rng.normal(0, 5, n) > 52).astype(int)
    site = np.repeat(["A", "B", "C"], n // 3)
    ill[site == "C"] = 1 - ill[site == "C"]
    ward = rng.choice(["x", "y", "z"], n)
    return pd.DataFrame({"site": site, "sex": sex, "age": age, "ward": ward, "ill": np.where(ill, "yes", "no")})


@pytest.fixture
def table(frame, tmp_path):
    frame.to_csv(tmp_path / "own.csv", index=False)
    return tmp_path / "own.csv"


def test_features_are_all_other_columns_or_those_named(frame, table):
    data, site = ms.load_table(table, **ROLES)
    assert data.columns == ("ward_y", "ward_z", "sex=m", "age") and data.protected == 2
    np.testing.assert_array_equal(data.X[:, 2], frame["sex"] == "m")
    np.testing.assert_allclose(data.X[:, 3], frame["age"])
    assert (data.y == (frame["ill"] == "yes")).all() and (site == frame["site"]).all()
    assert ms.load_table(table, **ROLES, numeric=["age"])[0].columns == ("sex=m", "age")


def test_filter_command_finds_what_the_estimator_finds(frame, table, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("filter", "--data", f"csv:{table}", *WORDS, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "kept 2 of 3 sources: A, B" in printed
    X = np.column_stack([frame["ward"] == "y", frame["ward"] == "z", frame["sex"] == "m", frame["age"]]).astype(float)
    flea = ms.FLEA().fit(X, frame["ill"], sensitive_features=frame["sex"], source=frame["site"])
    assert pd.read_csv(out / "kept.csv")["source"].tolist() == flea.kept_sources_.tolist() == ["A", "B"]
    pairs = pd.read_csv(out / "distances.csv")
    upper = np.triu_indices(3, 1)
    for name in ("discrepancy", "disparity", "disbalance"):
        np.testing.assert_allclose(pairs[name], getattr(flea, f"{name}_")[upper], rtol=1e-12)
        assert (out / f"{name}.svg").read_text().startswith("<?xml")
    diagnosis = pd.read_csv(out / "diagnosis.csv")
    np.testing.assert_allclose(diagnosis["q"], flea.q_values_, rtol=1e-12)
    assert diagnosis["kept"].tolist() == [True, True, False]
    page = (out / "report.html").read_text()
    assert (
        page.count("data:image/svg+xml") == 3 and "<script" not in page and "http" not in page.replace("http-equiv", "")
    )


def test_names_of_the_table_are_text_in_the_page(frame, tmp_path, capsys):
    bad = "<script>alert(1)</script>"
    frame.assign(site=frame["site"].replace("C", bad)).to_csv(tmp_path / "own.csv", index=False)
    words = ["filter", "--data", f"csv:{tmp_path / 'own.csv'}", *WORDS, "--out", tmp_path / "out"]
    assert run(*words, "-K", 2, "--aggregation", "max", "--json") == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["kept"] == ["A", "B"] and list(verdict["dropped"]) == [bad]
    assert bad not in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "words", "text"),
    [
        (
            {},
            ["--target", "il"],
            "has no column 'il'; expected the columns il, sex, site. Did you mean 'ill' for 'il'?",
        ),
        ({}, ["--numeric", "ages"], "Did you mean 'age' for 'ages'?"),
        ({}, ["--numeric", "ward"], "in row 0; expected finite numbers in a column of numbers"),
        ({}, ["--numeric", "site"], "column 'site' has 2 roles"),
        ({}, ["-K", "1"], "n_keep has value 1; expected more than half of the 3 sources"),
        ({}, ["-K", "2", "--beta", "0.6"], "-K has --beta 0.6 beside it"),
        ({"ill": "maybe"}, [], "['ill'] has 3 distinct values ['maybe', 'no', 'yes']; expected exactly two"),
        ({"site": "D"}, [], "['site'] has 1 source with one row, such as 'D'"),
        ({"sex": None}, [], "['sex'] has 1 missing values; expected none. First in row 7."),
        ({"age": None}, [], "['age'] has nan in row 7; expected finite numbers"),
    ],
)
def test_bad_tables_are_one_clear_line(frame, tmp_path, capsys, change, words, text):
    changed = frame.copy()
    for column, value in change.items():
        changed.loc[7, column] = value
    changed.to_csv(tmp_path / "own.csv", index=False)
    for command in ("filter", "run"):
        assert run(command, "--data", f"csv:{tmp_path / 'own.csv'}", *WORDS, *words, "--out", tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and text in error


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--data", "csv:own.csv", "--target", "ill"], "--data csv has no --sensitive, --source"),
        (["--data", "csv:own.csv", *WORDS, "--path", "x"], "--path has value 'x'; expected none with --data csv:FILE"),
        (["--data", "csv:nowhere.csv", *WORDS], "path has value 'nowhere.csv'"),
        (["--data", "adult", "--path", "x", "--target", "ill"], "--target has --data 'adult' beside it"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, capsys, words, text):
    assert run("filter", *words, "--out", tmp_path) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--eta", "nan"], "eta has value nan; expected a number."),
        (["--eta", "-1"], "eta has value -1; expected a finite number, at least 0."),
        (["--lambda", "-0.1"], "l2 has value -0.1; expected a finite number, at least 0."),
        (["--t", "0"], "t has value 0; expected a finite number other than 0."),
        (["--tau", "inf"], "tau has value inf; expected a finite number other than 0."),
        (["--jobs", "0"], "n_jobs has value 0; expected a number of processes, or -1 for all cores."),
    ],
)
def test_settings_of_the_study_that_no_learner_can_use_are_refused(table, tmp_path, capsys, words, text):
    assert run("run", "--data", f"csv:{table}", *WORDS, *words, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error == f"error: run_study: {text}\n"


def test_a_source_that_only_the_test_part_has_is_refused(frame, tmp_path, capsys):
    frame.assign(site=np.arange(len(frame)) // 2).to_csv(tmp_path / "own.csv", index=False)  # two rows each
    assert run("run", "--data", f"csv:{tmp_path / 'own.csv'}", *WORDS, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "of 120 sources without a row in the training part of seed 0" in error


def test_unique_text_is_no_feature(frame, tmp_path, capsys):
    long = pd.concat([frame] * 2, ignore_index=True).assign(name=[f"n{i}" for i in range(480)])
    long.to_csv(tmp_path / "own.csv", index=False)
    assert run("filter", "--data", f"csv:{tmp_path / 'own.csv'}", *WORDS, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "['name'] has 480 distinct values; expected at most 255" in error and "--numeric and --categorical" in error


def test_study_runs_on_the_own_table_with_the_published_options(table, tmp_path, capsys):
    words = ["run", "--data", f"csv:{table}", *WORDS, "--numeric", "age", "--seeds", 1, "--adversary", "none"]
    words += ["--learner", "none", "reg", "--method", "flea", "hterm", "-K", 2, "--aggregation", "max"]
    words += ["--eta", 0.3, "--lambda", 0.01, "--t", -1, "--tau", 1, "--out", tmp_path / "out"]
    assert run(*words) == 0
    printed = capsys.readouterr().out
    assert "hterm (corrected)" in printed
    found = pd.read_csv(tmp_path / "out" / "results.csv")
    assert set(found["n_sources"]) == {3} and set(found["n_malicious"]) == {1} and set(found["dataset"]) == {"own"}
    assert set(found["method"]) == {"flea", "hterm"}
    assert set(found.loc[found["method"] == "hterm", "version"]) == {"corrected"}


def test_ablation_keeps_what_each_subset_of_the_distances_keeps(table, tmp_path):
    data, site = ms.load_table(table, **ROLES, numeric=["age"])
    found = ms.run_study(
        data, tmp_path, adversaries=["flip#target"], seeds=1, source=site, n_malicious=1, ablation=True
    )
    assert found["method"].nunique() == 8 and set(found["learner"]) == {"reg", "-"}
    shares = found[found["metric"] == "fraction_malicious_flea"].set_index("method")["value"]
    alone = ms.run_study(
        data, tmp_path, adversaries=["flip#target"], seeds=1, source=site, n_malicious=1, methods=["flea"], learners=[]
    ).set_index("metric")["value"]
    assert shares["flea[disc+disp+disb]"] == alone["fraction_malicious_flea"]
    for name in ("disc", "disp", "disb"):
        assert shares[f"flea[{name}]"] == alone[f"fraction_malicious_{name}"]


def test_hyperparameters_reach_the_learners():
    chosen = ms.Hyperparameters(eta=0.2, l2=0.1, t=-1.0, tau=3.0)
    term = ms.make_method("hterm", "none", "linear", 0, 0.4, False, chosen)
    assert (term.l2, term.t, term.tau) == (0.1, -1.0, 3.0)
    assert (
        ms.make_learner("reg", hyperparameters=chosen).eta == ms.make_learner("adv", hyperparameters=chosen).eta == 0.2
    )
    assert ms.make_learner("resample", hyperparameters=chosen).estimator.l2 == 0.1


def test_penalty_of_the_plain_learner_is_on_the_mean_loss():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2))
    y = (X[:, 0] + rng.normal(size=300) > 0).astype(int)
    model = ms.PlainLearner(l2=0.5).fit(X, y)
    p = model.predict_proba(X)[:, 1]
    np.testing.assert_allclose(X.T @ (p - y) / len(y) + 0.5 * model.coef_[0], 0, atol=1e-4)


def test_census_files_on_disk_are_51_sources(tmp_path, capsys):
    """A stand-in of the survey's files: 51 states, 40 persons each, the columns of the survey and others."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "2018" / "1-Year"
    folder.mkdir(parents=True)
    for number in STATES.values():
        n = 40
        rows = {"AGEP": rng.integers(17, 80, n), "SEX": rng.integers(1, 3, n), "WKHP": rng.integers(10, 60, n)}
        rows |= {name: rng.integers(1, 3, n) for name in ("COW", "SCHL", "MAR", "RELP", "RAC1P")}
        rows |= {"OCCP": rng.integers(0, 9, n) * 1000, "POBP": rng.integers(1, 200, n), "PWGTP": np.ones(n, int)}
        rows |= {"PINCP": rng.integers(200, 90_000, n), "SERIALNO": [f"2018{i}" for i in range(n)]}
        rows["AGEP"][0], rows["PINCP"][1] = 12, 50  # a child, and a person without income: not in the study
        pd.DataFrame(rows).to_csv(folder / f"psam_p{number:02d}.csv", index=False)
    data, state = ms.census(data_home=tmp_path)
    assert len(STATES) == 51 and np.unique(state).tolist() == sorted(STATES) and len(data.y) == 51 * 38
    words = ["--data", "folktables", "--path", tmp_path, "--aggregation", "sum", "--disparity", "signed"]
    assert run("filter", *words, "-K", 31, "--out", tmp_path / "out", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["kept"]) == 31
    assert len(pd.read_csv(tmp_path / "out" / "distances.csv")) == 51 * 50 / 2
    (folder / "psam_p72.csv").unlink()
    with pytest.raises(ImportError, match=r"no file '.*psam_p72.csv' and no folktables"):
        ms.census(data_home=tmp_path)
