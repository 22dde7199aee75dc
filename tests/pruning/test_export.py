"""Exported networks compute what they computed."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.pruning.networks import PRUNABLE, Branching
from tests.pruning.oracles import images, shuffled
from workbench import models
from workbench.pruning.codec import decode
from workbench.pruning.export import AveragedCells, export_model
from workbench.pruning.netadapt import NetAdapt

NETWORKS = {
    "alexnet": (lambda: models.alexnet(width=0.1), (3, 32, 32)),
    "convnet": (lambda: models.convnet(width=0.1), (3, 64, 64)),
    "mobilenet": (lambda: models.mobilenet(10, width=0.1), (3, 64, 64)),
    "resnet20": (lambda: models.resnet20(width=0.5), (3, 32, 32)),
    "inception": PRUNABLE["inception"],
    "inverted residual": PRUNABLE["inverted residual"],
}


def reloaded(path, batch):
    """What the file computes, by whatever reads its format."""
    if path.suffix == ".safetensors":
        with torch.no_grad():
            return decode(path.read_bytes())(batch).numpy()
    if path.suffix == ".pt":
        with pytest.warns(DeprecationWarning, match=r"torch\.jit\.load"), torch.no_grad():
            return torch.jit.load(path)(batch).numpy()
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": batch.numpy()})[0]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", ["safetensors", "torchscript", "onnx"])
def test_a_pruned_network_computes_the_same_after_export(name, kind, tmp_path):
    factory, input_shape = NETWORKS[name]
    model = shuffled(factory())
    pruned = NetAdapt(step=0.1).propose(model, input_shape)[1].build()
    pruned.train()
    path = export_model(pruned, input_shape, tmp_path / "folder" / "network", kind)
    assert pruned.training
    batch = images(input_shape, batch=4)
    with torch.no_grad():
        expected = pruned.eval()(batch).numpy()
    np.testing.assert_allclose(reloaded(path, batch), expected, rtol=1e-4, atol=1e-5)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_suffix_follows_the_format(tmp_path):
    model = models.resnet20(width=0.25)
    assert export_model(model, (3, 32, 32), tmp_path / "a").name == "a.safetensors"
    assert export_model(model, (3, 32, 32), tmp_path / "b.bin").name == "b.bin"


@pytest.mark.parametrize(
    ("before", "after"), [((3, 3), (6, 6)), ((7, 5), (3, 4)), ((1, 9), (4, 2))]
)
def test_averaged_cells_are_adaptive_pooling(before, after):
    batch = torch.randn(2, 3, *before)
    expected = functional.adaptive_avg_pool2d(batch, after)
    torch.testing.assert_close(AveragedCells(before, after)(batch), expected)


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="format is 'pickle', but must be one of"):
        export_model(models.resnet20(width=0.25), (3, 32, 32), tmp_path / "a", "pickle")
    assert not list(tmp_path.iterdir())


def test_what_onnx_can_not_express_is_said(tmp_path):
    class Strange(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)

    with pytest.raises(ValueError, match="ONNX can't express the network"):
        export_model(Strange(), (3,), tmp_path / "a", "onnx")
    with pytest.raises(ValueError, match="can't be traced"):
        export_model(Branching(), (3, 8, 8), tmp_path / "a", "torchscript")
    assert not list(tmp_path.iterdir())


def test_onnx_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match="needs the package onnx"):
        export_model(models.resnet20(width=0.25), (3, 32, 32), tmp_path / "a", "onnx")
