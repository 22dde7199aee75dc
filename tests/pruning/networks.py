"""Networks that the package has never seen, for the tests of pruning."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Residual(nn.Module):
    """A stem, two residual additions with batch norm, and a projection."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.inner = nn.Conv2d(12, 20, 3, padding=1, bias=False)
        self.inner_norm = nn.BatchNorm2d(20)
        self.outer = nn.Conv2d(20, 12, 3, padding=1)
        self.projection = nn.Conv2d(12, 16, 1)
        self.wide = nn.Conv2d(12, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = functional.relu(self.stem(x))
        x = functional.relu(x + self.outer(functional.relu(self.inner_norm(self.inner(x)))))
        x = torch.relu(self.projection(x) + self.wide(x))
        return self.head(x.mean(dim=(2, 3)))


class Concatenation(nn.Module):
    """Two branches of different width side by side, and a dense connection."""

    def __init__(self):
        super().__init__()
        self.left = nn.Conv2d(3, 10, 3, padding=1)
        self.right = nn.Conv2d(3, 14, 1)
        self.norm = nn.BatchNorm2d(24)
        self.middle = nn.Conv2d(24, 12, 3, padding=1)
        self.head = nn.Linear((24 + 12) * 16, 7)

    def forward(self, x):
        both = functional.relu(self.norm(torch.cat([self.left(x), self.right(x)], dim=1)))
        x = torch.cat([both, functional.relu(self.middle(both))], 1)
        return self.head(torch.flatten(functional.adaptive_avg_pool2d(x, 4), 1))


class TiedConcatenation(nn.Module):
    """A concatenation to which a third layer is added: all three are one block."""

    def __init__(self):
        super().__init__()
        self.left = nn.Conv2d(3, 8, 3, padding=1)
        self.right = nn.Conv2d(3, 12, 3, padding=1)
        self.both = nn.Conv2d(3, 20, 1)
        self.head = nn.Conv2d(20, 4, 1)

    def forward(self, x):
        x = torch.cat([self.left(x), self.right(x)], dim=1) + self.both(x)
        return self.head(functional.relu(x)).mean(dim=[2, 3])


class InvertedResidual(nn.Module):
    """Depthwise layers, squeeze and excitation, and a residual addition."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.Hardswish()
        )
        self.expand = nn.Sequential(
            nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()
        )
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.squeeze = nn.Conv2d(32, 8, 1)
        self.excite = nn.Conv2d(8, 32, 1)
        self.project = nn.Conv2d(32, 16, 1)
        self.head = nn.Linear(16, 6)

    def forward(self, x):
        x = self.stem(x)
        y = functional.relu(self.depthwise(self.expand(x)))
        scale = functional.relu(self.squeeze(functional.adaptive_avg_pool2d(y, 1)))
        y = y * torch.sigmoid(self.excite(scale))
        x = x + self.project(y)
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Grouped(nn.Module):
    """Grouped convolutions, one of them with more outputs than inputs, and a group norm."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.grouped = nn.Conv2d(16, 32, 3, padding=1, groups=4)
        self.norm = nn.GroupNorm(8, 32)
        self.multiplied = nn.Conv2d(32, 64, 3, padding=1, groups=32)
        self.last = nn.Conv2d(64, 12, 1)
        self.activation = nn.PReLU(12)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = functional.relu(self.norm(self.grouped(functional.relu(self.stem(x)))))
        x = self.activation(self.last(functional.relu(self.multiplied(x))))
        return self.head(x.amax(dim=(2, 3)))


class UNet(nn.Module):
    """Transposed convolutions, one of them grouped, a skip by concatenation, an image as output."""

    def __init__(self):
        super().__init__()
        self.down1 = nn.Conv2d(3, 8, 3, padding=1)
        self.down2 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(16, 12, 2, stride=2)
        self.mix = nn.ConvTranspose2d(12, 12, 3, padding=1, groups=3)
        self.last = nn.Conv2d(20, 3, 3, padding=1)

    def forward(self, x):
        first = functional.relu(self.down1(x))
        up = functional.relu(self.mix(functional.relu(self.up(functional.relu(self.down2(first))))))
        return self.last(torch.cat([first, up], dim=1))


class DenseConnections(nn.Module):
    """Every layer sees all before it; the network's input is concatenated, too."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(11 + 4 * i) for i in range(3)])
        self.convs = nn.ModuleList([nn.Conv2d(11 + 4 * i, 4, 3, padding=1) for i in range(3)])
        self.transition = nn.Conv2d(23, 10, 1)
        self.depthwise = nn.Conv2d(10, 20, 3, padding=1, groups=10)
        self.head = nn.Linear(20 * 16, 5)

    def forward(self, x):
        x = torch.cat([x, self.stem(x)], dim=1)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat([conv(functional.relu(norm(x))), x], dim=1)
        x = functional.max_pool2d(functional.relu(self.transition(x)), 2)
        return self.head(functional.relu(self.depthwise(x)).flatten(1))


class Inception(nn.Module):
    """Branches, one of them a pool of what all of them see, flattened before they are joined."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 9, 3, padding=1)
        self.one = nn.Conv2d(9, 6, 1)
        self.three = nn.Sequential(nn.Conv2d(9, 7, 1), nn.ReLU(), nn.Conv2d(7, 8, 3, padding=1))
        self.join = nn.Conv2d(6 + 8 + 9, 10, 1)
        self.side = nn.Conv2d(23, 5, 1)
        self.head = nn.Linear(10 * 16 + 5 * 4, 4)

    def forward(self, x):
        x = functional.relu(self.stem(x))
        pooled = functional.max_pool2d(x, 3, stride=1, padding=1)
        x = functional.relu(torch.cat([self.one(x), self.three(x), pooled], 1))
        first = functional.adaptive_avg_pool2d(torch.relu(self.join(x)), 4).flatten(1)
        second = functional.adaptive_avg_pool2d(torch.relu(self.side(x)), 2)
        return self.head(torch.cat([first, second.view(second.size(0), -1)], dim=1))


class Sequence(nn.Module):
    """One-dimensional convolutions, flattened into a linear layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(2, 8, 5)
        self.second = nn.Conv1d(8, 6, 3, stride=2)
        self.head = nn.Linear(6 * 12, 4)

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))).flatten(1))


class Signal(nn.Module):
    """One-dimensional, with a stack of linear layers and batch norm after them."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 10, 5)
        self.hidden = nn.Linear(10, 24)
        self.norm = nn.BatchNorm1d(24)
        self.hidden2 = nn.Linear(24, 18)
        self.head = nn.Linear(18, 4)

    def forward(self, x):
        x = functional.relu(self.conv(x)).mean(dim=2)
        return self.head(torch.tanh(self.hidden2(self.norm(self.hidden(x)))))


class Perceptron(nn.Module):
    """Reshapes with a batch size taken from the input."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3 * 8 * 8, 30)
        self.second = nn.Linear(30, 20)
        self.head = nn.Linear(20, 3)

    def forward(self, x):
        x = x.view(x.size(0), -1)
        return self.head(functional.leaky_relu(self.second(functional.gelu(self.first(x)))))


PRUNABLE = {
    "residual": (Residual, (3, 16, 16)),
    "concatenation": (Concatenation, (3, 16, 16)),
    "tied concatenation": (TiedConcatenation, (3, 12, 12)),
    "inverted residual": (InvertedResidual, (3, 16, 16)),
    "grouped": (Grouped, (3, 12, 12)),
    "u-net": (UNet, (3, 16, 16)),
    "dense connections": (DenseConnections, (3, 8, 8)),
    "inception": (Inception, (3, 8, 8)),
    "sequence": (Sequence, (2, 30)),
    "signal": (Signal, (2, 40)),
    "perceptron": (Perceptron, (3, 8, 8)),
}
"""Networks of which at least one block can be pruned, and their input shapes."""


# ---------------------------------------------------------------------- what can't be pruned


class FixedView(nn.Module):
    """A size is written into the forward pass."""

    def __init__(self):
        super().__init__()
        self.free = nn.Conv2d(3, 8, 3, padding=1)
        self.fixed = nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(6 * 16, 4)

    def forward(self, x):
        x = functional.max_pool2d(torch.relu(self.fixed(torch.relu(self.free(x)))), 2)
        return self.head(x.view(-1, 6 * 16))


class ChannelMean(nn.Module):
    """A mean over channels."""

    def __init__(self):
        super().__init__()
        self.free = nn.Conv2d(3, 8, 3, padding=1)
        self.averaged = nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(64, 4)

    def forward(self, x):
        return self.head(torch.relu(self.averaged(torch.relu(self.free(x)))).mean(1).flatten(1))


class ChannelShuffle(nn.Module):
    """A reshape that deals the channels out anew."""

    def __init__(self):
        super().__init__()
        self.shuffled = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.shuffled(x))
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(torch.relu(self.grouped(x)).mean(dim=(2, 3)))


class InputResidual(nn.Module):
    """A residual addition to the network's input, and a layer norm."""

    def __init__(self):
        super().__init__()
        self.tied = nn.Conv2d(3, 3, 3, padding=1)
        self.hidden = nn.Linear(3, 12)
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 4)
        self.unused = nn.Linear(5, 5)

    def forward(self, x):
        x = x + self.tied(x)
        return self.head(self.norm(self.hidden(x.mean(dim=(2, 3)))))


class OwnParameter(nn.Module):
    """A scale for each channel, held outside of any layer."""

    def __init__(self):
        super().__init__()
        self.scaled = nn.Conv2d(3, 8, 3, padding=1)
        self.free = nn.Conv2d(8, 10, 1)
        self.scale = nn.Parameter(torch.rand(1, 8, 1, 1))
        self.head = nn.Linear(10, 4)

    def forward(self, x):
        return self.head(torch.relu(self.free(self.scaled(x) * self.scale)).mean(dim=(2, 3)))


class Attention(nn.Module):
    """A matrix product whose cost depends on a width."""

    def __init__(self):
        super().__init__()
        self.query = nn.Linear(6, 8)
        self.key = nn.Linear(6, 8)
        self.value = nn.Linear(6, 10)
        self.head = nn.Linear(10, 3)

    def forward(self, x):
        weights = torch.softmax(self.query(x) @ self.key(x).transpose(1, 2), dim=-1)
        return self.head((weights @ self.value(x)).mean(dim=1))


class Twice(nn.Module):
    """A layer that is called twice, on its own output."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.again = nn.Conv2d(8, 8, 3, padding=1)
        self.free = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = torch.relu(self.again(torch.relu(self.again(torch.relu(self.stem(x))))))
        return self.head(torch.relu(self.free(x)).mean(dim=(2, 3)))


class TwoOutputs(nn.Module):
    """Two heads, and features that are an output as well."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.features = nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)
        self.other = nn.Linear(6, 2)

    def forward(self, x):
        features = self.features(torch.relu(self.stem(x)))
        pooled = torch.relu(features).mean(dim=(2, 3))
        return {"logits": self.head(pooled), "other": self.other(pooled), "features": features}


class PaddedShortcut(nn.Module):
    """A shortcut that is padded with zero channels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 10, 3, padding=1)
        self.outer = nn.Conv2d(10, 12, 3, padding=1)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        y = self.outer(torch.relu(self.inner(x)))
        x = torch.relu(y + functional.pad(x, (0, 0, 0, 0, 2, 2)))
        return self.head(x.mean(dim=(2, 3)))


class Branching(nn.Module):
    """Its code looks at numbers, so it can't be traced symbolically."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        if float(x.sum()) > 1e9:
            x = -x
        return self.head(torch.relu(self.stem(x)).mean(dim=(2, 3)))


DIFFICULT = {
    "fixed view": (FixedView, (3, 8, 8), {"free"}),
    "channel mean": (ChannelMean, (3, 8, 8), {"free"}),
    "channel shuffle": (ChannelShuffle, (3, 8, 8), {"grouped"}),
    "input residual": (InputResidual, (3, 8, 8), set()),
    "own parameter": (OwnParameter, (3, 8, 8), {"free"}),
    "attention": (Attention, (5, 6), set()),
    "twice": (Twice, (3, 8, 8), {"stem", "free"}),
    "two outputs": (TwoOutputs, (3, 8, 8), {"stem"}),
    "padded shortcut": (PaddedShortcut, (3, 8, 8), {"inner"}),
    "branching": (Branching, (3, 8, 8), {"stem"}),
}
"""Networks with something that can't be pruned: class, input shape, the blocks that can."""
