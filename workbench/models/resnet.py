"""ResNet-20 for CIFAR (He et al., 2016, section 4.2): 0.27 M parameters, 41 M MACs at 32×32.

Where the number of filters changes, the shortcut is a 1×1 convolution (the paper's option B), so
that all shortcuts are layers that can be pruned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from workbench.models.widths import check_arguments, scaled, seeded

if TYPE_CHECKING:
    from torch import Tensor


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with batch norm, and a shortcut around them."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, features: Tensor) -> Tensor:
        """Map (n, before, h, w) to (n, after, h / stride, w / stride)."""
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(features)))))
        summed: Tensor = self.relu(residual + self.shortcut(features))
        return summed


class ResNet(nn.Module):
    """The network of `resnet20`; build it with that function."""

    def __init__(self, depth: int, num_classes: int, width: float, in_channels: int) -> None:
        super().__init__()
        widths = [scaled(channels, width) for channels in (16, 32, 64)]
        self.conv = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        stages: list[nn.Module] = []
        before = widths[0]
        for stage, after in enumerate(widths):
            blocks = []
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(ResidualBlock(before, after, stride))
                before = after
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(before, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (n, num_classes) of images (n, in_channels, 32, 32)."""
        features = self.stages(self.relu(self.bn(self.conv(images))))
        logits: Tensor = self.classifier(self.pool(features).flatten(1))
        return logits


def resnet20(
    num_classes: int = 10, width: float = 1.0, in_channels: int = 3, seed: int = 0
) -> ResNet:
    """Return ResNet-20 for 32×32 images: three stages of three residual blocks.

    Parameters
    ----------
    num_classes
        Number of outputs.
    width
        Factor for the number of filters of every hidden layer.
    in_channels
        Channels of the images.
    seed
        Of the initial weights; the caller's random state is left as it was.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    check_arguments(num_classes, width, in_channels)
    with seeded(seed):
        return ResNet(3, num_classes, width, in_channels)
