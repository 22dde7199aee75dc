"""The zoo: plain ``nn.Module`` networks whose widths can be scaled.

The caller sets torch's seed before building one; the factories set none.
"""

from workbench.models.alexnet import alexnet
from workbench.models.convnet import convnet
from workbench.models.mobilenet import mobilenet
from workbench.models.resnet import resnet20

__all__ = ["alexnet", "convnet", "mobilenet", "resnet20"]
