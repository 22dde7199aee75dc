"""The zoo: plain ``nn.Module`` networks whose widths can be scaled.

Weights are drawn from a seed that each factory takes, so that two calls give the same network.
"""

from workbench.models.alexnet import alexnet
from workbench.models.convnet import convnet
from workbench.models.mobilenet import mobilenet
from workbench.models.resnet import resnet20

__all__ = ["alexnet", "convnet", "mobilenet", "resnet20"]
