"""AlexNet for 32×32 images, as the NAFNAS experiments prune it.

Five convolutions and three fully connected layers; 56.83 M parameters and 225,136,640 MACs for
10 classes at width 1. The last layer is the output, so seven blocks can be pruned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from workbench.models.widths import check_arguments, scaled, seeded

if TYPE_CHECKING:
    from torch import Tensor


class AlexNet(nn.Module):
    """The network of `alexnet`; build it with that function."""

    def __init__(self, num_classes: int, width: float, in_channels: int) -> None:
        super().__init__()
        conv = [scaled(channels, width) for channels in (64, 192, 384, 256, 256)]
        hidden = scaled(4096, width)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, conv[0], kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(conv[0], conv[1], kernel_size=3, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(conv[1], conv[2], kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(conv[2], conv[3], kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(conv[3], conv[4], kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(conv[4] * 36, hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, num_classes),
        )
        # Without batch norm, torch's default lets the signal fade over five convolutions, and
        # small clients never get off the ground; He et al. (2015) keep its variance.
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (n, num_classes) of images (n, in_channels, 32, 32)."""
        features = self.avgpool(self.features(images)).flatten(1)
        logits: Tensor = self.classifier(features)
        return logits


def alexnet(
    num_classes: int = 10, width: float = 1.0, in_channels: int = 3, seed: int = 0
) -> AlexNet:
    """Return AlexNet for 32×32 images with freshly initialised weights.

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
        return AlexNet(num_classes, width, in_channels)
