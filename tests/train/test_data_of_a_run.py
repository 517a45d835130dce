"""Runs on folders of colour pictures: read ahead, augmented, and resumed in the middle of an epoch."""

from __future__ import annotations

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from helpers.small_run import StopAfter, Stopped, assert_same_bits, final_arrays
from sparsejax.cli import main
from sparsejax.models import ConvNet
from sparsejax.train import TrainConfig, TrainRun
from sparsejax.train._inputs import load_inputs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 3)):
        for label in range(2):
            (root / split / str(label)).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 128, (8, 8, 3), dtype=np.uint8) + np.uint8(100 * label)
                Image.fromarray(pixels).save(root / split / str(label) / f"{i}.png")
    return root


def test_a_run_on_pictures_resumes_in_the_middle_of_an_epoch(folder, tmp_path):
    # 6 steps in an epoch: it stops in the second one, and its last checkpoint is that of step 8.
    config = TrainConfig(
        data=f"folder:{folder}", method="dense", epochs=2, batch_size=4, crop="shift", flip=True, learning_rate=0.01
    )
    model = ConvNet(2, in_features=3, widths=(4,), rngs=nnx.Rngs(0))
    whole, stopped = (TrainRun(config, tmp_path / name, model=model, checkpoint_every=2) for name in ("a", "b"))
    assert whole.fit().accuracy is not None
    with pytest.raises(Stopped):
        stopped.fit(StopAfter(9))
    report = StopAfter(0)
    stopped.fit(report)
    assert report.done == 8
    assert_same_bits(final_arrays(stopped), final_arrays(whole))


def test_the_batch_of_a_step_does_not_depend_on_the_threads_or_the_start(folder):
    config = TrainConfig(data=f"folder:{folder}", batch_size=5, size=6, resize=7, crop="resized", flip=True, seed=3)
    serial, threaded = (load_inputs(config, threads=threads) for threads in (0, 2))
    expected = list(serial.batches(0, 10))
    assert {tuple(map(np.shape, batch)) for batch in expected} == {((5, 6, 6, 3), (5,))}
    for start in (0, 3):
        for got, batch in zip(threaded.batches(start, 10), expected[start:], strict=True):
            for one, other in zip(got, batch, strict=True):
                np.testing.assert_array_equal(one, other)
    labels = np.concatenate([batch[1] for batch in expected[:4]])
    assert not np.array_equal(labels, np.concatenate([batch[1] for batch in expected[4:8]]))  # another order
    assert not np.array_equal(expected[0][0][0], expected[4][0][0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "cifar"], "spec has value 'cifar'; expected digits, idx:PATH, npz:PATH, folder:PATH"),
        (["--data", "digits", "--size", "32"], "size has value 32 for data 'digits'; expected no size"),
        (["--data", "folder:PICTURES", "--crop", "resized"], "size has no value; expected one, for pictures"),
        (["--data", "folder:PICTURES", "--batch-size", "25"], "batch_size has value 25; expected at most 24"),
        (["--data", "npz:PICTURES/none.npz"], "none.npz'; expected an existing file"),
    ],
)
def test_bad_data_options_are_one_line(folder, tmp_path, capsys, words, message):
    words = [word.replace("PICTURES", str(folder)) for word in words]
    assert main(["train", *words, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "out").exists()
