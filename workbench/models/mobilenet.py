"""MobileNetV1 (Howard et al., 2017, table 1): 4.2 M parameters, 569 M MACs at 224×224.

A depthwise convolution belongs to the block of the convolution before it, which gives the 14
blocks that DecNAS counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from workbench.models.widths import check_arguments, scaled, seeded

if TYPE_CHECKING:
    from torch import Tensor

# (filters, stride of the depthwise convolution) of the 13 separable convolutions
SEPARABLE = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)


def _convolution(
    before: int, after: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(
            before,
            after,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=False,
        ),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )


class MobileNet(nn.Module):
    """The network of `mobilenet`; build it with that function."""

    def __init__(self, num_classes: int, width: float, in_channels: int) -> None:
        super().__init__()
        before = scaled(32, width)
        layers: list[nn.Module] = [_convolution(in_channels, before, 3, stride=2)]
        for filters, stride in SEPARABLE:
            after = scaled(filters, width)
            layers += [
                _convolution(before, before, 3, stride=stride, groups=before),
                _convolution(before, after, 1),
            ]
            before = after
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(before, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (n, num_classes) of images (n, in_channels, 224, 224)."""
        logits: Tensor = self.classifier(self.pool(self.features(images)).flatten(1))
        return logits


def mobilenet(
    num_classes: int = 1000, width: float = 1.0, in_channels: int = 3, seed: int = 0
) -> MobileNet:
    """Return MobileNetV1 for 224×224 images (any from 32×32 up work).

    Parameters
    ----------
    num_classes
        Number of outputs.
    width
        The paper's width multiplier: a factor for the filters of every hidden layer.
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
        return MobileNet(num_classes, width, in_channels)
