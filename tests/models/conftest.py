"""A compact torch ResNet with torchvision's names, to compare with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def _define(torch: Any) -> type:
    nn = torch.nn

    def conv(a, b, k, stride=1):
        return nn.Conv2d(a, b, k, stride, k // 2, bias=False)

    class Block(nn.Module):
        def __init__(self, a, width, stride, bottleneck):
            super().__init__()
            out = width * 4 if bottleneck else width
            if bottleneck:
                sizes = [(a, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
            else:
                sizes = [(a, width, 3, stride), (width, width, 3, 1)]
            for i, size in enumerate(sizes, 1):
                setattr(self, f"conv{i}", conv(*size))
                setattr(self, f"bn{i}", nn.BatchNorm2d(size[1]))
            self.count = len(sizes)
            if stride != 1 or a != out:
                self.downsample = nn.Sequential(conv(a, out, 1, stride), nn.BatchNorm2d(out))

        def forward(self, x):
            y = x
            for i in range(1, self.count + 1):
                y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
                if i < self.count:
                    y = y.relu()
            return (y + (self.downsample(x) if hasattr(self, "downsample") else x)).relu()

    class ResNet(nn.Module):
        def __init__(self, depths, bottleneck, num_classes, pool):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
            self.pool = pool
            features, wide = 64, 4 if bottleneck else 1
            for i, depth in enumerate(depths):
                width, blocks = 64 * 2**i, []
                for j in range(depth):
                    blocks.append(Block(features, width, 2 if i and not j else 1, bottleneck))
                    features = width * wide
                setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
            self.fc = nn.Linear(features, num_classes)

        def forward(self, x):
            x = self.pool(self.bn1(self.conv1(x)).relu())
            for i in range(1, 5):
                x = getattr(self, f"layer{i}")(x)
            return self.fc(x.mean((2, 3)))

    return ResNet


@pytest.fixture(scope="session")
def torch_resnet() -> Callable[..., Any]:
    """Return a builder of random torch ResNets in evaluation mode; skip without torch."""
    torch = pytest.importorskip("torch")
    cls = _define(torch)
    depths = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}

    def build(size: int, *, num_classes: int = 10, rigl_pool: bool = False) -> Any:
        torch.manual_seed(0)
        pool = torch.nn.MaxPool2d(3, 2, 0 if rigl_pool else 1)
        if rigl_pool:
            pool = torch.nn.Sequential(torch.nn.ZeroPad2d((0, 1, 0, 1)), pool)
        net = cls(depths[size], size == 50, num_classes, pool)
        for module in net.modules():
            # torch's default weights are so small that the images would hardly change the logits.
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
            # Defaults (0, 1) would hide mistaken statistics, scales and shifts.
            if isinstance(module, torch.nn.BatchNorm2d):
                for tensor in (module.weight.data, module.running_var):
                    tensor.uniform_(0.5, 1.0)
                for tensor in (module.bias.data, module.running_mean):
                    tensor.normal_(0, 0.2)
        return net.eval()

    return build
