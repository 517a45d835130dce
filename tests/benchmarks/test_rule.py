"""Fitting and judging the cost model of ``policy="rule"``."""

import ast
import itertools
import json
import math

import numpy as np
import pytest

from sparsejax.nn import cost_model
from sparsejax.nn.cost_model import Work
from sparsejax_bench import _cli, _fit_rule, rule
from sparsejax_bench._fit_rule import Observation

TRUE = {
    "conv": {
        "dense": {
            "call": 3e4,
            "weights": 0.5,
            "multiply_adds": 0.02,
            "activations": 0.3,
            "strided_multiply_adds": 0.04,
            "patches": 0.2,
        },
        "sparse": {"call": 2e4, "entries": 3.0, "vector_multiply_adds": 1.5, "activations": 0.4},
    },
    "linear": {
        "dense": {"call": 1e4, "weights": 0.7, "multiply_adds": 0.02, "activations": 0.0},
        "sparse": {"call": 1.5e4, "entries": 2.0, "vector_multiply_adds": 1.2, "activations": 0.2},
    },
}


def works():
    for batch, features, out, sparsity in itertools.product((1, 20, 400), (30, 200), (64, 900), (0.5, 0.8, 0.95)):
        entries = round((1 - sparsity) * features * out)
        yield sparsity, Work((features, out), entries, (batch, features), (batch, out), False)
    for batch, side, window, features, stride in itertools.product((1, 20), (6, 24), (3, 7), (4, 60), (1, 2)):
        for sparsity in (0.5, 0.8, 0.95):
            entries = round((1 - sparsity) * window**2 * features * 32)
            x, y = (batch, side, side, features), (batch, side // stride, side // stride, 32)
            yield sparsity, Work((window, window, features, 32), entries, x, y, stride > 1)


def observe(noise=0.0):
    random = np.random.default_rng(0)
    for sparsity, work in works():
        times = {
            form: cost_model.seconds(terms(work), TRUE[work.kind][form]) * math.exp(noise * random.standard_normal())
            for form, terms in _fit_rule.FORMS.items()
        }
        name = f"{work.kernel}{work.x}{work.y}"
        yield Observation(name, sparsity, work, times, times["dense"] / times["sparse"])


def test_the_fit_recovers_known_coefficients():
    table = _fit_rule.fit(observe())
    assert table.keys() == TRUE.keys()
    for kind, form in itertools.product(TRUE, ("dense", "sparse")):
        assert table[kind][form] == pytest.approx(TRUE[kind][form], rel=0.02, abs=1e-3)


def test_the_fit_of_noisy_times_is_close_and_not_negative():
    observations = list(observe(noise=0.1))
    table = _fit_rule.fit(observations)
    assert all(value >= 0 for forms in table.values() for form in forms.values() for value in form.values())
    errors = [math.log(_fit_rule.predicted_ratio(o.work, table) / o.ratio) for o in observations]
    assert 0.05 < np.std(errors) < 0.2
    assert abs(np.mean(errors)) < 0.05


def test_a_shape_is_judged_by_a_fit_that_has_not_seen_it():
    observations = list(observe())
    odd = observations[0].name
    wrong = [
        Observation(o.name, o.sparsity, o.work, {**o.seconds, "dense": 50 * o.seconds["dense"]}, 50 * o.ratio)
        if o.name == odd
        else o
        for o in observations
    ]
    true = [o.ratio for o in observations if o.name == odd]
    unseen = [ratio for o, ratio in zip(wrong, _fit_rule.left_out(wrong), strict=True) if o.name == odd]
    assert unseen == pytest.approx(true, rel=0.05)
    alone = [o for o in observations if o.name == odd]
    assert _fit_rule.left_out(alone) == [None] * len(alone)


def test_agreement_counts_choices_and_what_wrong_ones_cost():
    linear, conv = (next(o for o in observe() if o.work.kind == kind) for kind in ("linear", "conv"))
    cases = [(linear, 2.0, 3.0), (linear, 0.5, 0.9), (linear, 4.0, 0.9), (conv, 0.25, 1.1), (conv, 2.0, None)]
    observations = [Observation(o.name, 0.5, o.work, o.seconds, measured) for o, measured, _ in cases]
    found = {a.kind: a for a in rule.agreements(observations, [ratio for *_, ratio in cases])}
    assert (found["linear"].cases, found["conv"].cases, found["all"].cases) == (3, 1, 4)
    assert found["linear"].agree == pytest.approx(2 / 3)
    assert found["linear"].loss == pytest.approx(4.0)
    assert found["conv"].agree == 0
    assert found["conv"].loss == pytest.approx(4.0)
    assert found["all"].agree == found["all"].always_sparse == 0.5


@pytest.fixture
def measured(tmp_path):
    """What ``layers`` writes, as far as ``rule`` reads it."""
    rows = []
    for number, ((batch, size), sparsity) in enumerate(
        itertools.product(((4, 64), (64, 64), (64, 256), (256, 512)), (0.5, 0.9))
    ):
        name = f"square-{batch}-{size}"
        shape = {"set": "t", "name": name, "kind": "linear", "batch": batch, "in_features": size, "out_features": size}
        rest = dict.fromkeys(("height", "width", "window_h", "window_w", "stride"), 1) | {"pad_h": 0, "pad_w": 0}
        nnz = round((1 - sparsity) * size * size)
        work = Work((size, size), nnz, (batch, size), (batch, size), False)
        dense, sparse = (
            cost_model.seconds(terms(work), TRUE["linear"][form]) for form, terms in _fit_rule.FORMS.items()
        )
        step = {"sparsejax": {"seconds": sparse}, "xla": {"seconds": dense, "ratio": {"median": dense / sparse}}}
        times = {"step": {} if number == 0 else step}
        rows.append({**shape, **rest, "sparsity": sparsity, "nnz": nnz, "times": times})
    path = tmp_path / "layers.json"
    path.write_text(json.dumps({"command": "layers", "rows": rows}))
    return path


def test_the_command(capsys, measured):
    assert _cli.run_pinned(["rule", "--from", str(measured), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["command"] == "rule"
    assert found["coefficients"].keys() == {"linear"}
    assert len(found["rows"]) == 7  # one was not timed
    assert [(a["kind"], a["cases"], a["agree"]) for a in found["agreement"]["fitted"]] == [
        ("linear", 7, 1.0),
        ("all", 7, 1.0),
    ]
    assert {a["cases"] for a in found["agreement"]["left out"]} == {7}
    assert _cli.run_pinned(["rule", "--from", str(measured)]) == 0
    out = capsys.readouterr().out
    assert "always sparse would" in out
    start = out.index("{", out.index("COEFFICIENTS: "))
    assert ast.literal_eval(out[start : out.index("\n}\n", start) + 2]) == found["coefficients"]


def test_the_printed_table_is_the_source_of_the_module():
    from pathlib import Path

    assert _fit_rule.text(cost_model.COEFFICIENTS) in Path(cost_model.__file__).read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "expected the JSON of 'sparsejax bench layers'"),
        ("no JSON", "expected the JSON of 'sparsejax bench layers'"),
        ('{"rows": [{"times": {}}]}', "no row with times of sparsejax and xla"),
        (None, "No such file"),
    ],
)
def test_a_file_that_does_not_serve_is_one_line(capsys, tmp_path, content, message):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    assert _cli.run_pinned(["rule", "--from", str(path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and len(err.splitlines()) == 1
