"""Plain, slow ways to say what pruning should do, for comparison."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from workbench.pruning.cost import Cost


def images(input_shape, batch=3, seed=0):
    """A batch of random samples."""
    return torch.randn((batch, *input_shape), generator=torch.Generator().manual_seed(seed))


def shuffled(model, seed=0):
    """The network with random weights, biases and statistics, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            if value.is_floating_point():
                if name.endswith("running_var"):
                    value.uniform_(0.5, 2, generator=generator)
                elif value.dim() > 1:
                    spread = (1 / value[0].numel()) ** 0.5
                    value.normal_(0, spread, generator=generator)
                else:
                    value.normal_(0.1, 0.5, generator=generator)
    return model.eval()


def zeroed(model, chosen):
    """The unpruned network with the removed channels zeroed wherever they are made or scaled."""
    silent = copy.deepcopy(model)
    with torch.no_grad():
        for block, kept in chosen:
            for tie in block.ties:
                if tie.axis != "out":
                    continue
                module = silent.get_submodule(tie.layer)
                for channel in np.flatnonzero((tie.unit_of >= 0) & ~kept[tie.unit_of]):
                    _silence(module, int(channel))
    return silent


def _silence(module, channel):
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        within = module.out_channels // module.groups
        rows = module.in_channels // module.groups
        group = channel // within
        module.weight[group * rows : (group + 1) * rows, channel % within] = 0
    elif not isinstance(module, nn.PReLU):
        module.weight[channel] = 0
    if getattr(module, "bias", None) is not None:
        module.bias[channel] = 0


def outputs(model, batch):
    """All tensors that a network returns, in a list."""
    with torch.no_grad():
        return [leaf for leaf in tree_leaves(model(batch)) if isinstance(leaf, torch.Tensor)]


def counted_cost(model, input_shape):
    """The cost by torch's own counters, without any formula of ours."""
    model = copy.deepcopy(model).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images(input_shape, batch=1))
    return Cost(
        macs=counter.get_total_flops() // 2,
        parameters=sum(value.numel() for value in model.parameters()),
        size_bytes=sum(value.nbytes for value in model.state_dict().values()),
    )


def deep_copy_and_slice(model, layer, kept, consumer, repeat=1):
    """Prune one plain layer the obvious way: copy everything, then slice two layers."""
    pruned = copy.deepcopy(model)
    index = torch.as_tensor(kept)
    producer, user = pruned.get_submodule(layer), pruned.get_submodule(consumer)
    columns = (index[:, None] * repeat + torch.arange(repeat)).flatten()
    producer.weight = nn.Parameter(producer.weight.detach()[index].clone())
    producer.bias = nn.Parameter(producer.bias.detach()[index].clone())
    user.weight = nn.Parameter(user.weight.detach()[:, columns].clone())
    for module, names, size in (
        (producer, ("out_channels", "out_features"), len(index)),
        (user, ("in_channels", "in_features"), len(columns)),
    ):
        for name in names:
            if hasattr(module, name):
                setattr(module, name, size)
    return pruned
