"""The models without a torchvision counterpart, against torch functions that read the documented names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flax import nnx

from sparsejax.models import ConvNet, load_torch_state_dict, mobilenet_v1, wide_resnet

torch: Any = pytest.importorskip("torch")
F = torch.nn.functional
IMAGES = np.random.default_rng(0).normal(size=(2, 34, 34, 3)).astype(np.float32)

State = dict[str, Any]


class Reader:
    """Layers by name; a forward pass draws each tensor and so writes a whole checkpoint."""

    def __init__(self):
        self.state: State = {}
        self.generator = torch.Generator().manual_seed(0)

    def tensor(self, name: str, *shape: int, scale: float = 0.2, shift: float = 0.0) -> Any:
        value = torch.randn(shape, generator=self.generator) * scale
        self.state[name] = value.abs() + shift if shift else value
        return self.state[name]

    def conv(self, name: str, x: Any, out: int, size: int, stride: int = 1, groups: int = 1) -> Any:
        fan_in = x.shape[1] // groups * size**2
        weight = self.tensor(f"{name}.weight", out, x.shape[1] // groups, size, size, scale=(2 / fan_in) ** 0.5)
        return F.conv2d(x, weight, None, stride, size // 2, 1, groups)

    def bn(self, name: str, x: Any) -> Any:
        count = x.shape[1]
        mean, shift = (self.tensor(f"{name}.{kind}", count) for kind in ("running_mean", "bias"))
        var, scale = (self.tensor(f"{name}.{kind}", count, shift=0.5) for kind in ("running_var", "weight"))
        return F.batch_norm(x, mean, var, scale, shift, training=False, eps=1e-5)

    def classify(self, x: Any, classes: int) -> Any:
        x = x.mean((2, 3))
        return F.linear(x, self.tensor("fc.weight", classes, x.shape[1]), self.tensor("fc.bias", classes))


def torch_mobilenet(net: Reader, x: Any) -> Any:
    x = net.bn("bn1", net.conv("conv1", x, 8, 3, 2)).relu()
    widths = (16, 32, 32, 64, 64, *[128] * 6, 256, 256)
    strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
    for i, (width, stride) in enumerate(zip(widths, strides, strict=True)):
        name = f"blocks.{i}"
        x = net.conv(f"{name}.depthwise", x, x.shape[1], 3, stride, groups=x.shape[1])
        x = net.bn(f"{name}.bn1", x).relu()
        x = net.bn(f"{name}.bn2", net.conv(f"{name}.pointwise", x, width, 1)).relu()
    return net.classify(x, 5)


def torch_wide_resnet(net: Reader, x: Any) -> Any:
    x = net.conv("conv1", x, 16, 3)
    for i, width in enumerate((32, 64, 128), 1):
        for j in range(2):
            name, stride = f"block{i}.{j}", 2 if i > 1 and j == 0 else 1
            active = net.bn(f"{name}.bn1", x).relu()
            y = net.bn(f"{name}.bn2", net.conv(f"{name}.conv1", active, width, 3, stride)).relu()
            y = net.conv(f"{name}.conv2", y, width, 3)
            x = y + (net.conv(f"{name}.shortcut", active, width, 1, stride) if j == 0 else x)
    return net.classify(net.bn("bn1", x).relu(), 5)


def torch_convnet(net: Reader, x: Any) -> Any:
    for i, width in enumerate((8, 12, 16)):
        x = F.max_pool2d(x, 2) if i else x
        x = net.bn(f"bns.{i}", net.conv(f"convs.{i}", x, width, 3)).relu()
    return net.classify(x, 5)


@pytest.mark.parametrize(
    ("make", "forward"),
    [
        (lambda rngs: mobilenet_v1(5, width=0.25, rngs=rngs), torch_mobilenet),
        (lambda rngs: wide_resnet(16, 2, 5, rngs=rngs), torch_wide_resnet),
        (lambda rngs: ConvNet(5, in_features=3, widths=(8, 12, 16), rngs=rngs), torch_convnet),
    ],
    ids=["mobilenet_v1", "wide_resnet", "convnet"],
)
def test_model_equals_torch_under_its_documented_names(
    make: Callable[[nnx.Rngs], Any], forward: Callable[[Reader, Any], Any]
):
    reader = Reader()
    expected = forward(reader, torch.from_numpy(IMAGES).permute(0, 3, 1, 2)).numpy()
    model = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    load_torch_state_dict(model, reader.state)
    model.eval()
    got = np.asarray(nnx.jit(lambda model, x: model(x))(model, IMAGES))
    assert expected.std() > 1e-2
    np.testing.assert_allclose(got, expected, atol=1e-4)
