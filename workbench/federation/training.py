"""What a client does with a model: local SGD, and a test on its own samples."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

_TEST_BATCH = 256
_LARGE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class LocalSettings:
    """Settings of one client's local training in one round."""

    local_epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    proximal: float
    seed: int


@dataclass(frozen=True)
class TestResult:
    """Outcome of a test: sum of the losses, correct predictions, samples."""

    __test__ = False

    loss_sum: float
    correct: int
    samples: int


def train(
    module: nn.Module, images: torch.Tensor, labels: torch.Tensor, settings: LocalSettings
) -> float:
    """Train a module in place by SGD on (n, C, H, W) images and (n,) labels.

    Every source of chance (order of the samples, dropout) is drawn from ``settings.seed``; the
    caller's generators are left as they were. Returns the mean loss over the last epoch.
    """
    order = np.random.default_rng(settings.seed)
    whole = _has_batch_norm(module)
    devices = [images.device] if images.device.type == "cuda" else []
    module.train()
    loss_sum = torch.zeros((), device=images.device)
    with torch.random.fork_rng(devices=devices), _optimizer(module, settings) as step:
        _seed(images.device, settings.seed)
        for _ in range(settings.local_epochs):
            loss_sum.zero_()
            for batch in batches(len(labels), settings.batch_size, order, whole=whole):
                rows = torch.from_numpy(batch).to(images.device)
                # advanced indexing gives a contiguous tensor: ask for the memory format again
                inputs = images[rows].contiguous(memory_format=memory_format(images))
                loss = nn.functional.cross_entropy(module(inputs), labels[rows])
                loss.backward()  # type: ignore[no-untyped-call]
                step()
                loss_sum += loss.detach() * len(batch)
    return float(loss_sum) / max(len(labels), 1)


def _seed(device: torch.device, seed: int) -> None:
    """Seed the generators that training on a device draws from.

    `torch.manual_seed` notes the call stack for every kind of device that has not been used yet:
    in a small training that takes a tenth of the time, and the notes are kept for ever.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


@contextmanager
def _optimizer(module: nn.Module, settings: LocalSettings) -> Iterator[Callable[[], None]]:
    """Give what is to be called after each backward pass; gradients are gone afterwards.

    A small network is updated as a whole. In a large one each tensor is updated as soon as its
    gradient is there, which is then let go: the same numbers, and at no time all gradients.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    start = {parameter: parameter.detach().clone() for parameter in parameters if settings.proximal}

    def sgd(part: list[nn.Parameter]) -> Callable[[], None]:
        optimizer = torch.optim.SGD(
            part,
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            fused=True,  # without it, weight decay makes a copy of every layer's gradient
        )

        def step() -> None:
            for parameter in part:
                if parameter in start and parameter.grad is not None:
                    # The gradient of proximal / 2 * ||w - w_global||^2 (FedProx, equation 2).
                    change = parameter.detach() - start[parameter]
                    parameter.grad.add_(change, alpha=settings.proximal)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return step

    if sum(parameter.nbytes for parameter in parameters) < _LARGE_BYTES:
        yield sgd(parameters)
        return
    steps = {parameter: sgd([parameter]) for parameter in parameters}
    hooks = [
        parameter.register_post_accumulate_grad_hook(lambda tensor: steps[tensor]())  # type: ignore[no-untyped-call]
        for parameter in parameters
    ]
    try:
        yield lambda: None
    finally:
        for hook in hooks:
            hook.remove()


def test(module: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> TestResult:
    """Test a module on (n, C, H, W) images and (n,) labels, without changing it."""
    module.eval()
    loss_sum, correct = 0.0, 0
    with torch.inference_mode():
        for begin in range(0, len(labels), _TEST_BATCH):
            inputs, wanted = (
                images[begin : begin + _TEST_BATCH],
                labels[begin : begin + _TEST_BATCH],
            )
            outputs = module(inputs)
            loss_sum += float(nn.functional.cross_entropy(outputs, wanted, reduction="sum"))
            correct += int((outputs.argmax(dim=1) == wanted).sum())
    return TestResult(loss_sum=loss_sum, correct=correct, samples=len(labels))


test.__test__ = False  # type: ignore[attr-defined]


def batches(
    samples: int, batch_size: int, order: np.random.Generator, *, whole: bool
) -> Iterator[NDArray[np.int64]]:
    """Yield one epoch's batches of row numbers in random order.

    With ``whole`` a last batch of a single sample joins the one before it, because batch norm
    can't normalise over a single value.
    """
    rows = order.permutation(samples)
    size = batch_size or max(samples, 1)
    cuts = list(range(0, samples, size)) or [0]
    if whole and len(cuts) > 1 and samples - cuts[-1] == 1:
        cuts.pop()
    for begin, end in zip(cuts, [*cuts[1:], samples], strict=True):
        yield rows[begin:end]


def memory_format(images: torch.Tensor) -> torch.memory_format:
    """Return the memory format that training uses: channels last for images."""
    return torch.channels_last if images.dim() == 4 else torch.contiguous_format


def _has_batch_norm(module: nn.Module) -> bool:
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())  # noqa: SLF001  # torch has no public base class
