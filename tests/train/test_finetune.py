"""Fine-tuning inside a mask: models and batches of the user's own, kinds of steps, resuming, the dense twin."""

from __future__ import annotations

import csv
import json

import jax
import numpy as np
import pytest
from flax import nnx

from helpers.small_run import StopAfter, Stopped, assert_same_bits, final_arrays, make_model
from sparsejax import nn
from sparsejax.cli import main
from sparsejax.train import (
    DensePair,
    EpochRow,
    TensorBoardLogger,
    TrainConfig,
    TrainRun,
    evaluate,
    finetune,
    load_model,
    load_network,
)
from sparsejax.train._fixed_mask import fix_masks
from sparsejax.train._optimizer import learning_rates
from sparsejax.train._steps import StepKind, forward_of_kind
from sparsejax.train.results._ratios import ratio_text

CONFIG = TrainConfig(method="fixed", epochs=2, batch_size=16, learning_rate=0.05)


@pytest.fixture(scope="module")
def pruned():
    """A dense network with the zeros of a mask that keeps a tenth of the second convolution."""
    model, mask = make_model(), np.random.default_rng(0).random((3, 3, 4, 8)) < 0.1
    model.convs[1].kernel[...] = model.convs[1].kernel[...] * mask
    return model, mask


@pytest.fixture(scope="module")
def batches(dataset):
    standardized = dataset.standardized()
    images, labels = standardized.train_images[:96], standardized.train_labels[:96]
    return [(images[i : i + 16], labels[i : i + 16]) for i in range(0, 96, 16)]


class Own(nnx.Module):
    """A classifier that the library does not know, without a usual name for its last layer."""

    def __init__(self) -> None:
        self.first = nnx.Linear(64, 32, rngs=nnx.Rngs(0))
        self.logits = nnx.Linear(32, 10, rngs=nnx.Rngs(1))

    def __call__(self, images):
        return self.logits(nnx.relu(self.first(images.reshape(len(images), -1))))


def test_a_model_and_torch_batches_of_the_users_own(batches):
    torch = pytest.importorskip("torch")
    model, mask = Own(), np.random.default_rng(0).random((64, 32)) < 0.1
    images, labels = (torch.tensor(np.concatenate(part)) for part in zip(*batches, strict=True))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels.long()), batch_size=16)
    rows = []
    options = {"masks": {"first": mask}, "test": loader, "callbacks": [rows.append], "measure": False}
    model.first.kernel[...] = model.first.kernel[...] * mask
    before = jax.tree.map(np.array, nnx.state(model))
    result = finetune(model, loader, epochs=3, learning_rate=0.1, **options)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(model), before)
    np.testing.assert_array_equal(nn.pattern_masks(result.model)["first"], mask)
    assert (result.step, len(rows)) == (18, 3)
    assert rows[-1].loss < rows[0].loss and rows[-1].accuracy == result.accuracy > 0.1
    assert all(row.forward_ms > 0 and row.backward_ms >= 0 and row.data_ms >= 0 for row in rows)


def test_plain_generators_give_the_bits_of_pairs(pruned, batches, tmp_path):
    def generator():
        for images, labels in batches:
            yield {"pixel_values": images, "label": labels.astype(np.int64)}

    runs = [
        finetune(pruned[0], inputs, CONFIG, out=tmp_path / name, measure=False, **options)
        for name, inputs, options in (("a", batches, {}), ("b", generator, {"steps_per_epoch": 6}))
    ]
    states = [nnx.state(run.model, nnx.Param) for run in runs]
    jax.tree.map(np.testing.assert_array_equal, *states)
    assert runs[0].accuracy is None and runs[0].sparsity == runs[1].sparsity
    np.testing.assert_array_equal(nn.pattern_masks(runs[0].model)["convs/1"], pruned[1])
    rows = list(csv.DictReader((tmp_path / "a" / "epochs.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["6", "12"] and rows[0]["accuracy"] == ""


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda b: iter(b), {}, "which ends after one epoch; expected an iterable"),
        (lambda b: lambda: iter(b), {}, "inputs has no length; expected one, or steps_per_epoch"),
        (lambda b: [], {}, "inputs has no batch"),
        (lambda b: [b[0][0]], {}, "a batch has type ndarray; expected a pair"),
        (lambda b: [{"pixels": 1}], {}, "a batch has the keys pixels; expected one of image, images"),
        (lambda b: [(b[0][0], b[0][0])], {}, r"a batch has labels float32\[16, 8, 8, 1\] for images"),
        (lambda b: lambda: iter(b), {"steps_per_epoch": 7}, "inputs has 6 batches; expected 7"),
    ],
)
def test_batches_of_another_form_are_refused(pruned, batches, make, options, words):
    with pytest.raises(ValueError, match=words):
        finetune(pruned[0], make(batches), CONFIG, measure=False, **options)


def test_the_choice_of_layers_is_repeated_and_a_run_resumes_to_the_same_bits(dataset, pruned, tmp_path):
    whole = TrainRun(CONFIG, tmp_path / "a", dataset=dataset, model=pruned[0], measure=False)
    whole.fit()
    assert json.loads((tmp_path / "a" / "stored_layers.json").read_text()) == ["convs/1"]
    stopped = TrainRun(CONFIG, tmp_path / "b", dataset=dataset, model=pruned[0], measure=False, checkpoint_every=2)
    with pytest.raises(Stopped):
        stopped.fit(StopAfter(9))
    again = TrainRun(CONFIG, tmp_path / "b", dataset=dataset, model=pruned[0], checkpoint_every=2)  # it would measure
    report = StopAfter(0)
    again.fit(report)
    assert report.done == 8
    assert_same_bits(final_arrays(again), final_arrays(whole))


@pytest.mark.parametrize("changes", [{"optimizer": "adamw", "label_smoothing": 0.1}, {"precision": "bfloat16"}])
def test_kinds_of_steps_stay_inside_the_mask(dataset, pruned, tmp_path, changes):
    config = TrainConfig(method="fixed", epochs=1, batch_size=32, learning_rate=0.01, **changes)
    result = TrainRun(config, tmp_path, dataset=dataset, model=pruned[0], measure=False).fit()
    assert result.model.convs[1].kernel[...].dtype == np.float32
    np.testing.assert_array_equal(nn.pattern_masks(result.model)["convs/1"], pruned[1])
    assert not np.array_equal(result.model.fc.kernel[...], pruned[0].fc.kernel[...])


def test_a_frozen_backbone_trains_the_classifier_alone(dataset, pruned, tmp_path):
    config = TrainConfig(method="fixed", epochs=1, batch_size=32, freeze_backbone=True)
    model = TrainRun(config, tmp_path, dataset=dataset, model=pruned[0], measure=False).fit().model
    dense = nn.densify(model)
    for old, new in ((pruned[0].convs, dense.convs), (pruned[0].bns, dense.bns)):
        jax.tree.map(np.testing.assert_array_equal, nnx.state(old), nnx.state(new))
    assert not np.array_equal(dense.fc.kernel[...], pruned[0].fc.kernel[...])


def test_losses_of_the_kinds_of_steps(pruned, batches):
    import optax

    images, labels = batches[0]
    logits = nnx.clone(pruned[0])(images)
    targets = 0.9 * jax.nn.one_hot(labels, 10) + 0.01
    smoothed = float(optax.softmax_cross_entropy(logits, targets).mean())
    parts = nnx.split(nnx.clone(pruned[0]))
    assert float(forward_of_kind(StepKind(0.1))(*parts, images, labels)) == pytest.approx(smoothed, rel=1e-5)
    plain, half = (float(forward_of_kind(StepKind(0.0, p))(*parts, images, labels)) for p in ("float32", "bfloat16"))
    assert half == pytest.approx(plain, rel=0.05) and half != plain


def test_schedules():
    def rates(**changes):
        rate = learning_rates(TrainConfig(learning_rate=1.0, **changes), 30)
        return [round(float(rate(step)), 3) for step in (0, 3, 9, 10, 20, 29)]

    assert rates(schedule="step", warmup=0.1) == [0.1, 1.0, 1.0, 0.1, 0.01, 0.01]
    assert rates(schedule="constant", warmup=0.0) == [1.0] * 6
    cosine = rates(warmup=0.0)
    assert cosine[0] == 1.0 and cosine == sorted(cosine, reverse=True) and cosine[-1] < 0.01


def test_the_dense_twin_and_the_ratios(dataset, pruned, tmp_path):
    pair = DensePair(CONFIG, tmp_path, dataset=dataset, model=pruned[0], measure=False)
    outcome = pair.fit()
    assert outcome.dense.sparsity == 0 and outcome.sparse.sparsity > 0.5
    assert len(outcome.step_ratios) == len(outcome.run_ratios) == 11  # twelve rounds of a step, the first compiles
    assert "steps alone: " in str(outcome) and "with waiting for data: " in str(outcome)
    assert "rounds" in ratio_text(outcome.run_ratios)
    # All weights of the dense twin are trained.
    assert np.count_nonzero(outcome.dense.model.convs[1].kernel[...]) > pruned[1].sum()


def test_the_rows_of_epochs_reach_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    logger = TensorBoardLogger(tmp_path)
    logger(EpochRow(1, 6, 2.0, None, 0.9, 0.1, 1.0, 2.0, 0.5, 3.0))
    logger.close()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"loss" in content and b"data_ms" in content and b"accuracy" not in content


def test_words_for_ratios():
    assert ratio_text([3.0] * 5) == "3.00x faster (quartiles 3.00 to 3.00, 5 rounds)"
    assert ratio_text([0.5] * 3) == "2.00x slower (quartiles 2.00 to 2.00, 3 rounds)"
    assert ratio_text([0.8, 1.3, 1.1]).startswith("no difference was measured (ratio 1.10, quartiles 0.95 to 1.20")


def test_evaluation_counts_layers_and_times_both_forms(dataset, pruned):
    from sparsejax.data import ImageTask

    task = ImageTask.from_dataset(dataset.standardized(), allow_missing_classes=True)
    found = evaluate(pruned[0], task, batch_sizes=(2,), rounds=7)
    by_path = {layer.path: layer for layer in found.layers}
    assert by_path["convs/1"].sparsity == pytest.approx(1 - pruned[1].mean())
    assert by_path["convs/1"].flops == 2 * int(pruned[1].sum()) * 16
    assert by_path["convs/1"].dense_flops == 2 * 288 * 16 and by_path["fc"].sparsity == 0
    assert found.flops < found.dense_flops and 0 <= found.accuracy <= 1
    assert all(len(each.ratios) == 7 for each in found.latencies)
    for words, options in (("rounds has value 3", {"rounds": 3}), ("batch_sizes has value", {"batch_sizes": (0,)})):
        with pytest.raises(ValueError, match=words):
            evaluate(pruned[0], task, **options)


def test_commands_from_a_run_to_a_table(tmp_path, capsys):
    """train prunes, finetune goes on from its folder, evaluate and train --from read both; the data are not needed."""
    small = ["--epochs", "1", "--batch-size", "256", "--model", "mlp"]
    assert main(["train", *small, "--sparsity", "0.7", "--out", str(tmp_path / "a")]) == 0
    sparse = load_model(tmp_path / "a")
    small = small[:4]  # without --model
    words = ["finetune", "--from", str(tmp_path / "a"), *small, "--crop", "none", "--no-flip", "--json"]
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "b")]) == 0
    result = json.loads(capsys.readouterr().out)
    network = load_network(tmp_path / "b")
    assert network.name == "mlp"
    masks = network.masks
    assert result["sparsity"] == pytest.approx(0.7, abs=0.01)
    for path, mask in nn.pattern_masks(sparse).items():
        np.testing.assert_array_equal(masks[path], mask)
    assert main(["evaluate", "--from", str(tmp_path / "b"), "--batch", "4"]) == 0
    out = capsys.readouterr().out
    assert "layers/0" in out and "of dense" in out
    # Pruned further: no weight that was zero is in the mask of the end, which is sparser.
    words = ["train", *small, "--from", str(tmp_path / "a"), "--sparsity", "0.9", "--out", str(tmp_path / "c")]
    assert main(words) == 0
    assert load_network(tmp_path / "c").name == json.loads((tmp_path / "c" / "run.json").read_text())["model"] == "mlp"
    further = nn.pattern_masks(load_model(tmp_path / "c"))
    for path, mask in nn.pattern_masks(sparse).items():
        assert not (further[path] & ~mask).any()
        assert 1 - further[path].mean() == pytest.approx(0.9, abs=0.001)
    capsys.readouterr()
    for command in ("train", "finetune", "evaluate"):
        out = [] if command == "evaluate" else ["--out", str(tmp_path / "d")]
        assert main([command, "--from", str(tmp_path / "a"), "--model", "convnet", *out]) == 2
        error = capsys.readouterr().err
        assert "model has value 'convnet'; expected 'mlp', that of the run in" in error and error.count("\n") == 1
        assert not (tmp_path / "d").exists()


def test_a_choice_by_the_masks_alone_needs_no_times(tmp_path, monkeypatch):
    """With --no-measure two runs store the same layers, whatever the machine does beside them."""
    chosen = []

    def recorded(*args, **options):
        chosen.append(options["policy"])
        return fix_masks(*args, **options)

    monkeypatch.setattr("sparsejax.train._prepare.fix_masks", recorded)
    small = ["--epochs", "1", "--batch-size", "512"]
    words = ["train", "--method", "static", "--model", "mlp", *small, "--out", str(tmp_path / "a")]
    assert main(words) == 0
    words = ["finetune", "--from", str(tmp_path / "a"), *small, "--out"]
    assert main([*words, str(tmp_path / "b"), "--no-measure"]) == 0
    assert json.loads((tmp_path / "b" / "stored_layers.json").read_text()) == ["layers/0", "layers/1"]
    assert main([*words, str(tmp_path / "c")]) == 0
    assert chosen == ["always", "measured"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--from", "none.pt"],
            "source has value 'none.pt'; expected an existing PyTorch file",
        ),
        (["--from", "FOLDER"], "expected the folder of a training run, with run.json"),
        (["--from", "FOLDER/cut.pt"], "cut.pt"),
    ],
)
def test_bad_networks_are_one_line_and_nothing_is_written(tmp_path, capsys, words, message):
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04cut")
    words = [word.replace("FOLDER", str(tmp_path)) for word in words]
    assert main(["finetune", *words, "--data", "digits", "--model", "mlp", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "out").exists()
