"""Fine-tuning a sparse network inside its mask: any model, any data."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flax import nnx

from sparsejax import data
from sparsejax._files import PathLike
from sparsejax.train._config import TrainConfig
from sparsejax.train._loop import TrainRun
from sparsejax.train._user_inputs import UserInputs
from sparsejax.train.log._epochs import Callback
from sparsejax.train.log._progress import Reporter
from sparsejax.train.results._result import TrainResult

Batches = Iterable[Any] | Callable[[], Iterable[Any]]


def finetune(
    model: nnx.Module,
    inputs: data.Dataset | data.ImageTask | Batches,
    config: TrainConfig | None = None,
    *,
    test: Batches | None = None,
    masks: Mapping[str, np.ndarray] | None = None,
    out: PathLike | None = None,
    steps_per_epoch: int | None = None,
    prepare: Callable[[Any], tuple[Any, Any]] | None = None,
    measure: bool = True,
    callbacks: Sequence[Callback] = (),
    report: Reporter | None = None,
    checkpoint_every: int = 100,
    resume: bool = True,
    **changes: Any,
) -> TrainResult:
    """Train the kept weights of a network; the pruned ones stay zero.

    w <- mask * (w - rate * update(g))

    Layers are stored compressed where that is measured faster; the others stay dense under the mask. What is trained
    is the same.

    Args:
      model: NNX classifier, dense with zeros or with sparse layers. It is not changed.
      inputs: training examples: a `sparsejax.data.ImageTask` or `Dataset`, or batches of your own: an iterable that
        can be walked once for every epoch (a PyTorch ``DataLoader``, a Hugging Face data set in NumPy format, a
        ``tf.data`` pipeline ``.as_numpy_iterator``, a list), or a function that returns an iterator. A batch is a pair
        (images, labels) or a dict with "image", "images", "pixel_values", "x" or "inputs", and "label", "labels", "y"
        or "targets"; arrays of NumPy, JAX or PyTorch in the layout that the model takes.
      config: settings; ``TrainConfig(method="fixed", learning_rate=0.01)`` if None.
      test: batches to measure the accuracy on after each epoch, as ``inputs``; an `ImageTask` has its own.
      masks: bool arrays by layer path, true keeps the weight; the model's patterns and zeros if None.
      out: folder for checkpoints, metrics and picture, in which a killed run resumes; None keeps nothing.
      steps_per_epoch: batches of an epoch, where ``inputs`` has no length.
      prepare: makes (images, labels) from a batch of any other form.
      measure: choose the storage of layers by time; otherwise all layers that are 80 % sparse are compressed.
      callbacks: called with the `EpochRow` of each epoch, such as `TensorBoardLogger`.
      report: where progress goes; nowhere if None.
      checkpoint_every, resume: as for `TrainRun`. A resumed run on batches of your own ends with the same bits if they
        come again in the same order.
      **changes: fields of the configuration, such as ``epochs=3``.

    Returns:
      `TrainResult`; ``result.model`` has sparse layers.

    Raises:
      ValueError: a mask that does not fit, data that cannot be read as batches, or a bad configuration.
      OSError: the folder cannot be written to.

    Source: Iofinova et al. 2022, "How well do sparse ImageNet models transfer?", full fine-tuning; Nikdan et al. 2023
    (SparseProp), section 5.

    >>> import numpy as np
    >>> from sparsejax.models import MLP
    >>> model = MLP(4, 2, hidden=(8,), rngs=nnx.Rngs(0))
    >>> model.layers[0].kernel[...] = model.layers[0].kernel[...].at[:3].set(0)
    >>> batches = [{"x": np.ones((5, 4), np.float32), "y": np.zeros(5, np.int32)}] * 3
    >>> result = finetune(model, batches, epochs=2, measure=False)
    >>> result.step, float(abs(nnx.state(result.model)["fc"]["bias"][...]).max()) > 0
    (6, True)
    """
    config = config or TrainConfig(method="fixed", learning_rate=0.01)
    config = dataclasses.replace(config, **changes)
    source: Any = inputs
    if not isinstance(inputs, data.Dataset | data.ImageTask):
        source = UserInputs(inputs, test, prepare, steps_per_epoch)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory()) if out is None else out
        run = TrainRun(
            config,
            folder,
            dataset=source,
            model=model,
            masks=masks,
            measure=measure,
            callbacks=callbacks,
            checkpoint_every=checkpoint_every,
            resume=resume,
            times_forward=bool(callbacks) or out is not None,
        )
        return run.fit(report)
