"""The zoo against published figures, and against torch's own flop counter."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from workbench import models
from workbench.pruning.blocks import find_blocks
from workbench.pruning.cost import cost_of

ZOO = {
    "alexnet": (models.alexnet, (3, 32, 32)),
    "convnet": (models.convnet, (3, 128, 128)),
    "mobilenet": (models.mobilenet, (3, 224, 224)),
    "resnet20": (models.resnet20, (3, 32, 32)),
}


def counted_macs(model, input_shape):
    """Half of the flops that torch counts for one sample."""
    with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.device("meta"):
        model.to("meta").eval()(torch.zeros(1, *input_shape, device="meta"))
    return counter.get_total_flops() // 2


def test_alexnet_has_the_published_size():
    cost = cost_of(models.alexnet(), (3, 32, 32))
    assert cost.macs == 225_136_640
    assert cost.parameters == 56_826_698
    assert cost.size_bytes == 4 * 56_826_698


def test_a_narrow_alexnet_still_has_seven_blocks():
    model = models.alexnet(width=0.125)
    assert cost_of(model, (3, 32, 32)).parameters == pytest.approx(0.89e6, rel=0.01)
    assert len(find_blocks(model, (3, 32, 32)).prunable) == 7


def test_mobilenet_has_the_published_size_and_decnas_blocks():
    # Howard et al., table 8: 569 million multiply-adds, 4.2 million parameters.
    cost = cost_of(models.mobilenet(), (3, 224, 224))
    assert cost.macs == pytest.approx(569e6, rel=0.002)
    assert cost.parameters == pytest.approx(4.2e6, rel=0.01)
    # DecNAS, section 4.1: 14 candidates for MobileNet.
    assert len(find_blocks(models.mobilenet(), (3, 224, 224)).prunable) == 14


@pytest.mark.parametrize(
    ("width", "macs", "parameters"),
    [(0.75, 325e6, 2.6e6), (0.5, 149e6, 1.3e6), (0.25, 41e6, 0.5e6)],
)
def test_mobilenet_widths_have_the_published_sizes(width, macs, parameters):
    # Howard et al., table 6.
    cost = cost_of(models.mobilenet(width=width), (3, 224, 224))
    assert cost.macs == pytest.approx(macs, rel=0.02)
    assert cost.parameters == pytest.approx(parameters, rel=0.07)


def test_resnet20_has_the_published_size():
    # He et al., table 6: 0.27 million parameters; 41 million multiply-adds.
    cost = cost_of(models.resnet20(), (3, 32, 32))
    assert cost.parameters == pytest.approx(0.27e6, rel=0.02)
    assert cost.macs == pytest.approx(41e6, rel=0.01)


def test_convnet_has_six_convolutions_and_one_linear_layer():
    # DecNAS, section 5.1.
    kinds = [type(module).__name__ for module in models.convnet().modules()]
    assert kinds.count("Conv2d") == 6
    assert kinds.count("Linear") == 1


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("width", [1.0, 0.3])
@pytest.mark.parametrize("in_channels", [3, 1])
def test_macs_are_torch_own_to_the_digit(name, width, in_channels):
    factory, (_, *size) = ZOO[name]
    shape = (in_channels, *size)
    model = factory(num_classes=7, width=width, in_channels=in_channels)
    cost = cost_of(model, shape)
    assert cost.parameters == sum(value.numel() for value in model.parameters())
    assert cost.size_bytes == sum(value.nbytes for value in model.state_dict().values())
    assert cost.macs == counted_macs(model, shape)


@pytest.mark.parametrize("name", ZOO)
def test_every_model_computes_logits_and_gradients(name):
    factory, _ = ZOO[name]
    torch.manual_seed(0)
    model = factory(num_classes=5, width=0.1, in_channels=2)
    logits = model(torch.randn(2, 2, 32, 32))
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert all(value.grad is not None for value in model.parameters())


@pytest.mark.parametrize("name", ZOO)
def test_weights_depend_on_the_seed_alone(name):
    factory, _ = ZOO[name]
    states = []
    for torch_seed, seed in ((1, 1), (2, 1), (1, 2)):
        torch.manual_seed(torch_seed)
        model = factory(width=0.1, seed=seed)
        after = torch.rand(1)
        torch.manual_seed(torch_seed)
        assert torch.equal(torch.rand(1), after)  # the caller's random state is left alone
        states.append(torch.cat([value.flatten() for value in model.parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("num_classes", 0),
        ("width", 0.0),
        ("width", float("nan")),
        ("width", -1),
        ("in_channels", 0),
    ],
)
def test_wrong_arguments_are_named(name, argument, value):
    with pytest.raises(ValueError, match=rf"{argument} is {value}"):
        ZOO[name][0](**{argument: value})
