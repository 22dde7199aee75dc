"""An exported model gives the same outputs as the run's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from tests.search import small
from workbench.pruning.codec import decode
from workbench.search.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return small.small_search().run(tmp_path_factory.mktemp("runs") / "one", progress=False)


def from_safetensors(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    return decode(path.read_bytes()).eval()


def from_torchscript(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    return torch.jit.load(path).eval()


def from_onnx(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    session = onnxruntime.InferenceSession(path)
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("kind", "load"),
    [
        ("safetensors", from_safetensors),
        ("torchscript", from_torchscript),
        ("onnx", from_onnx),
    ],
)
@pytest.mark.parametrize("iteration", [0, 2])
def test_the_reloaded_model_is_the_same(
    run: Run, kind: str, load: Callable[[Path], Callable[[torch.Tensor], torch.Tensor]],
    iteration: int,
) -> None:  # fmt: skip
    path = run.export(iteration, kind)  # type: ignore[arg-type]
    images = small.dataset().images(np.arange(17))
    model = run.model(iteration).eval()
    with torch.no_grad():
        torch.testing.assert_close(load(path)(images), model(images), rtol=0, atol=1e-5)


def test_what_is_not_there_is_refused(run: Run) -> None:
    with pytest.raises(FileNotFoundError, match="iteration_009"):
        run.export(9)
    with pytest.raises(ValueError, match="pickle"):
        run.export(0, "pickle")  # type: ignore[arg-type]
