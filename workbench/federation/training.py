"""What a client does with a model: local SGD, and a test on its own samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_TEST_BATCH = 256


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
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    start = [parameter.detach().clone() for parameter in parameters] if settings.proximal else []
    optimizer = torch.optim.SGD(
        parameters,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    order = np.random.default_rng(settings.seed)
    whole = _has_batch_norm(module)
    devices = [images.device] if images.device.type == "cuda" else []
    module.train()
    loss_sum = torch.zeros((), device=images.device)
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(settings.seed)
        for _ in range(settings.local_epochs):
            loss_sum.zero_()
            for batch in batches(len(labels), settings.batch_size, order, whole=whole):
                rows = torch.from_numpy(batch).to(images.device)
                optimizer.zero_grad(set_to_none=True)
                # advanced indexing gives a contiguous tensor: ask for the memory format again
                inputs = images[rows].contiguous(memory_format=memory_format(images))
                loss = nn.functional.cross_entropy(module(inputs), labels[rows])
                loss.backward()  # type: ignore[no-untyped-call]
                _add_proximal_gradient(parameters, start, settings.proximal)
                optimizer.step()
                loss_sum += loss.detach() * len(batch)
    return float(loss_sum) / max(len(labels), 1)


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


def _add_proximal_gradient(
    parameters: list[nn.Parameter], start: list[torch.Tensor], proximal: float
) -> None:
    """Add the gradient of ``proximal / 2 * ||w - w_global||^2`` (FedProx, equation 2)."""
    for parameter, origin in zip(parameters, start, strict=False):
        if parameter.grad is not None:
            parameter.grad.add_(parameter.detach() - origin, alpha=proximal)
