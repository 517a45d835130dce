"""Runs that start from a pruned network, structures and layer filters, and AC/DC's defaults and dense partner."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from helpers.small_run import ACDC, StopAfter, Stopped, assert_same_bits, final_arrays, make_model
from sparsejax import models, nn
from sparsejax.train import TrainConfig, TrainRun, _prepare, make_plan
from sparsejax.train._optimizer import layers_kept_dense
from sparsejax.train._rebuild import load_model
from sparsejax.train._source import Network, load_network
from sparsejax.train._state import sparse_masks
from sparsejax.train.checkpoints._arrays import collect
from sparsejax.train.log._metrics import read_metrics


@pytest.fixture(scope="module")
def seventy():
    """A network whose second convolution has 70 % zeros."""
    model = make_model()
    kernel = np.array(model.convs[1].kernel[...])
    mask = np.abs(kernel) >= np.quantile(np.abs(kernel), 0.7)
    model.convs[1].kernel[...] = model.convs[1].kernel[...] * mask
    return model, mask


def test_a_sparse_network_is_pruned_further_and_nothing_is_revived(dataset, seventy, tmp_path):
    model, mask = seventy
    config = TrainConfig(sparsity=0.9, epochs=3, batch_size=16, dense_fraction=0.2, prune_fraction=0.4)
    run = TrainRun(config, tmp_path, dataset=dataset, model=model)
    assert [phase.name for phase in run.plan.phases] == ["prune", "sparse"]
    counts = []
    for state in run.states():
        kernel = nn.dense_kernels(state.model)["convs/1"]
        assert not kernel[~mask].any()
        counts.append(np.count_nonzero(kernel))
    assert counts[0] == mask.sum() and counts == sorted(counts, reverse=True)
    assert counts[3] == counts[0]  # before the first refresh: no weight more, no weight less
    assert counts[-1] == 288 - round(0.9 * 288)
    with pytest.raises(ValueError, match=r"sparsity has value 0\.6; expected more than 0\.\d+, that of the network"):
        make_plan(TrainConfig(sparsity=0.6), 640, {"convs/1": mask})


@pytest.mark.parametrize("method", ["rigl", "static"])
def test_sparse_to_sparse_methods_start_from_the_masks(dataset, seventy, tmp_path, method):
    model, mask = seventy
    config = TrainConfig(method=method, epochs=3, batch_size=16, update_every=4)
    run = TrainRun(config, tmp_path, dataset=dataset, model=model)
    first = sparse_masks(run._optimizer)
    assert first is not None and list(first) == ["convs/1"]
    np.testing.assert_array_equal(first["convs/1"], mask)
    *_, last = run.states()
    assert last.support["convs/1"].sum() == mask.sum()
    assert np.array_equal(last.support["convs/1"], mask) == (method == "static")


@pytest.mark.parametrize("structure", ["2:4", "block:4x1"])
def test_structures(dataset, tmp_path, structure):
    config = TrainConfig(sparsity=0.5, epochs=3, batch_size=16, structure=structure)
    *_, last = TrainRun(config, tmp_path, dataset=dataset, model=make_model()).states()
    groups = nn.pattern_masks(last.model)["convs/1"].reshape(9, 4, 8).sum(1)  # four inputs of each window and output
    assert set(np.unique(groups)) == ({2} if structure == "2:4" else {0, 4})


def test_layer_filters(dataset, tmp_path):
    model = make_model()
    assert layers_kept_dense(model, 1, 10, include="convs/*, fc") == ()
    assert layers_kept_dense(model, 1, 10, include="*", exclude="fc") == ("fc",)
    for options, words in (
        ({"include": "layer9/*"}, r"include has glob 'layer9/\*'; expected one that matches a layer: convs/0, convs/1"),
        ({"exclude": "convs/1"}, "expected layers left to prune"),
    ):
        with pytest.raises(ValueError, match=words):
            TrainRun(TrainConfig(**options), tmp_path, dataset=dataset, model=model)
    assert not any(tmp_path.iterdir())


def test_the_dense_partner_is_trained_scored_and_kept(dataset, tmp_path):
    whole = TrainRun(ACDC, tmp_path / "a", dataset=dataset, model=make_model(), checkpoint_every=2)
    result = whole.fit()
    assert result.partner is not None and result.partner.step == result.step == 16
    assert 0 <= result.partner.accuracy <= 1 and result.partner.sparsity == 0
    assert np.count_nonzero(result.partner.model.convs[1].kernel[...]) > result.model.convs[1].kernel.size
    assert result.to_dict()["partner"]["accuracy"] == result.partner.accuracy
    rows = read_metrics(tmp_path / "a" / "dense_partner" / "metrics.csv")
    # It forks a step before the last dense phase ends.
    assert [row.phase for row in rows[13:]] == ["dense"] * 3 and len(rows) == 16
    stopped = TrainRun(ACDC, tmp_path / "b", dataset=dataset, model=make_model(), checkpoint_every=2)
    with pytest.raises(Stopped):
        stopped.fit(StopAfter(15))
    stopped.fit()
    for name in ("_self", "_partner"):
        pair = [run if name == "_self" else run._partner for run in (stopped, whole)]
        assert_same_bits(final_arrays(pair[0]), final_arrays(pair[1]))


def test_runs_and_partners_of_a_run_have_its_network(dataset, tmp_path):
    """In Python the name of a configuration has a default, which says nothing about the run that it starts from."""
    config = TrainConfig(method="static", model="mlp", epochs=1, batch_size=32)
    TrainRun(config, tmp_path / "a", dataset=dataset).fit()
    config = dataclasses.replace(ACDC, source=str(tmp_path / "a"))
    assert config.model == "convnet"
    run = TrainRun(config, tmp_path / "b", dataset=dataset)
    result = run.fit()
    assert run.config.model == "mlp"
    for folder, model in ((tmp_path / "b", result.model), (tmp_path / "b" / "dense_partner", result.partner.model)):
        network = load_network(folder)
        assert network.name == "mlp" and (folder / "network.json").is_file()
        kernels = nn.dense_kernels(network.model), nn.dense_kernels(nn.densify(model))
        jax.tree.map(np.testing.assert_array_equal, *kernels)
    with pytest.raises(ValueError, match=r"model has value 'convnet'; expected 'mlp', that of the run in"):
        load_network(tmp_path / "a", "convnet")


def test_masks_move_with_the_defaults_of_acdc(tmp_path):
    run = TrainRun(TrainConfig(method="acdc", model="mlp"), tmp_path)
    for _ in run.states():
        pass
    changes = [row.mask_change for row in read_metrics(run.dir.metrics) if row.mask_change is not None]
    assert len(changes) == 4
    assert sum(change >= 0.01 for change in changes) >= len(changes) / 2
    assert run.plan.remark == ""


@pytest.mark.parametrize(
    ("name", "option", "value"), [("resnet18", "pool_padding", ((0, 1), (0, 1))), ("vit_tiny", "epsilon", 1e-12)]
)
def test_what_a_file_set_beside_the_weights_stays_with_a_run(dataset, tmp_path, monkeypatch, name, option, value):
    """RigL's padding and Hugging Face's epsilon: in the network of a run, and in that of a run which starts from it."""
    model: Any = nnx.eval_shape(lambda: models.build(name, 10, 1, (8, 8), nnx.Rngs(0)))
    usual = getattr(model, option)
    nnx.update(model, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), nnx.state(model)))
    setattr(model, option, value)
    for folder in (tmp_path / "first", tmp_path / "second"):
        monkeypatch.setattr(_prepare, "load_network", lambda *_, model=model, **__: Network(model, {}, name))
        config = TrainConfig(method="dense", model=name, source=str(folder), batch_size=16, epochs=1)
        run = TrainRun(config, folder, dataset=dataset)
        with run.writing():
            run.checkpoints.save(0, collect(run._model, run._optimizer, None, {}))
        model = load_model(folder)
        assert getattr(model, option) == value != usual
