"""The folder of a run: configuration, metrics, checkpoints."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sparsejax.nn import sparsify
from sparsejax.train import TrainConfig
from sparsejax.train._folder import RunDir
from sparsejax.train.checkpoints._arrays import assign, capacity_in, collect, log_in, masks_in
from sparsejax.train.checkpoints._checkpoint import Checkpoints
from sparsejax.train.log._metrics import MetricsLog, MetricsRow, PhaseTime, phase_times, read_metrics


def test_another_configuration_is_refused_by_field(tmp_path):
    folder = RunDir(tmp_path)
    folder.claim(TrainConfig(epochs=2), resume=True)
    folder.metrics.write_text("of two epochs")
    folder.claim(TrainConfig(epochs=2), resume=True)
    assert folder.metrics.exists()
    folder.claim(TrainConfig(epochs=3), resume=True)  # there is no checkpoint yet
    assert not folder.metrics.exists() and folder.belongs_to(TrainConfig(epochs=3))
    (folder.checkpoints / "7").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"epochs 3; expected 2 to resume it\. .*--no-resume"):
        folder.claim(TrainConfig(epochs=2), resume=True)
    assert folder.belongs_to(TrainConfig(epochs=3))


def test_an_unreadable_configuration_is_refused(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match="unreadable"):
        RunDir(tmp_path).claim(TrainConfig(), resume=True)


def test_starting_over_discards_the_run_and_nothing_else(tmp_path):
    folder = RunDir(tmp_path)
    folder.claim(TrainConfig(epochs=2), resume=True)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    folder.metrics.write_text("old")
    folder.claim(TrainConfig(epochs=3), resume=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "run.json"]


def rows(count: int) -> list[MetricsRow]:
    odd = [(None, None, None), (0.5, 1 / 7, 1234)]
    return [
        MetricsRow(i, 0, "dense", 1 / 3 + i, accuracy, 0.25, change, flops, 2.0 * i)
        for i, (accuracy, change, flops) in ((i, odd[i % 2]) for i in range(1, count + 1))
    ]


def write(path, checkpointed, new) -> MetricsLog:
    log = MetricsLog(path, checkpointed)
    for row in new:
        log.write(row)
    log.close()
    return log


def test_metrics_survive_a_resume_without_repeats(tmp_path):
    path = tmp_path / "metrics.csv"
    checkpointed = write(path, "", rows(3)).text()
    write(path, checkpointed, rows(5)[3:])
    whole = path.read_text()
    with path.open("a") as file:
        file.write("6,0,den")  # a kill in the middle of a row
    assert read_metrics(path) == rows(5)
    assert not write(path, checkpointed, rows(5)[3:]).was_damaged
    assert path.read_text() == whole
    assert read_metrics(path) == rows(5)


def test_a_new_run_starts_an_empty_file(tmp_path):
    path = tmp_path / "metrics.csv"
    write(path, "", rows(5))
    assert not write(path, "", rows(1)).was_damaged
    assert read_metrics(path) == rows(1)


@pytest.mark.parametrize("damage", ["", "step,epoch\n1,0\n", None, b"\xff\x00"])
def test_a_damaged_log_is_rebuilt_from_the_checkpoint(tmp_path, damage):
    path = tmp_path / "metrics.csv"
    checkpointed = write(path, "", rows(4)).text()
    path.unlink() if damage is None else path.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    assert write(path, checkpointed, []).was_damaged
    assert read_metrics(path) == rows(4)


def test_a_row_that_cannot_be_read_is_an_error_with_the_file(tmp_path):
    path = tmp_path / "metrics.csv"
    write(path, "", rows(2))
    path.write_text(path.read_text().replace("dense", "dense,x"))
    with pytest.raises(ValueError, match=r"metrics\.csv' has a row that cannot be read"):
        read_metrics(path)


def test_times_per_phase():
    sparse = MetricsRow(4, 0, "sparse", 0.0, None, 0.9, None, None, 1.5)
    expected = {"dense": PhaseTime(3, 0.012, 4.0), "sparse": PhaseTime(1, 0.0015, 1.5)}
    assert phase_times([*rows(3), sparse]) == expected


class Noisy(nnx.Module):
    def __init__(self, seed: int) -> None:
        self.fc = nnx.Linear(4, 3, rngs=nnx.Rngs(seed))
        self.noise = nnx.Dropout(0.5, rngs=nnx.Rngs(dropout=seed))


def optimizer_of(model) -> nnx.Optimizer:
    return nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)


def test_random_state_and_masks_are_restored(tmp_path):
    mask = np.arange(12).reshape(4, 3) % 3 == 0
    model, _ = sparsify(Noisy(1), {"fc": mask}, min_sparsity=0.0, policy="always")
    optimizer = optimizer_of(model)
    model.noise(jnp.ones(3))
    optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
    checkpoints = Checkpoints(tmp_path, {"seed": 1})
    assert checkpoints.newest() is None
    checkpoints.save(1, collect(model, optimizer, {"fc": mask}, {"fc": 4}, "the log"))
    arrays = checkpoints.load(1)
    assert log_in(arrays) == "the log"
    masks = masks_in(arrays)
    assert capacity_in(arrays) == {"fc": 4}
    np.testing.assert_array_equal(masks["fc"], mask)
    other, _ = sparsify(Noisy(2), masks, min_sparsity=0.0, policy="always")
    fresh = optimizer_of(other)
    assign(arrays, other, fresh)
    for got, expected in ((other, model), (fresh, optimizer)):
        assert jax.tree.structure(nnx.state(got)) == jax.tree.structure(nnx.state(expected))
        jax.tree.map(np.testing.assert_array_equal, plain(got), plain(expected))


def plain(node):
    def data(leaf):
        return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf

    return jax.tree.map(data, nnx.state(node))


def test_arrays_of_any_dtype_and_without_elements_are_restored(tmp_path):
    arrays = {
        "none": np.zeros((0, 3), jnp.bfloat16),
        "half": np.arange(3).astype(jnp.bfloat16),
        "mask": np.array([True, False]),
        "count": np.asarray(2**40),
    }
    checkpoints = Checkpoints(tmp_path, {})
    checkpoints.save(1, arrays)
    loaded = checkpoints.load(1)
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (loaded[name].dtype, loaded[name].shape) == (array.dtype, array.shape)
        assert loaded[name].tobytes() == array.tobytes()


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    model = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    arrays = collect(model, optimizer_of(model), None, {})
    wider = nnx.Linear(4, 5, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"at 'model/bias/value', has float32\[3\]; expected float32\[5\]"):
        assign(arrays, wider, optimizer_of(wider))
    bare = nnx.Linear(4, 3, use_bias=False, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="at 'model/bias/value', has an entry"):
        assign(arrays, bare, optimizer_of(bare))
