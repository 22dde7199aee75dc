"""DecNAS's ConvNet: a simplified AlexNet with six convolutions and one fully connected layer.

DecNAS (section 5.1) runs it on CelebA at 128×128 with 8 classes and describes it as "sequential
CONV, Pooling, and final FC layers". The paper gives no widths; those here are our choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from workbench.models.widths import check_arguments, scaled, seeded

if TYPE_CHECKING:
    from torch import Tensor


class ConvNet(nn.Module):
    """The network of `convnet`; build it with that function."""

    def __init__(self, num_classes: int, width: float, in_channels: int) -> None:
        super().__init__()
        widths = [scaled(channels, width) for channels in (32, 64, 128, 256, 256, 256)]
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(zip([in_channels, *widths], widths, strict=False)):
            layers += [nn.Conv2d(before, after, kernel_size=3, padding=1), nn.ReLU()]
            if index < len(widths) - 1:
                layers.append(nn.MaxPool2d(kernel_size=2))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Linear(widths[-1] * 4, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (n, num_classes) of images (n, in_channels, 128, 128)."""
        logits: Tensor = self.classifier(self.pool(self.features(images)).flatten(1))
        return logits


def convnet(
    num_classes: int = 8, width: float = 1.0, in_channels: int = 3, seed: int = 0
) -> ConvNet:
    """Return DecNAS's ConvNet for 128×128 images (any from 32×32 up work).

    Parameters
    ----------
    num_classes
        Number of outputs; DecNAS uses 8.
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
        return ConvNet(num_classes, width, in_channels)
