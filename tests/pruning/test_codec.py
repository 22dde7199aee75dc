"""Networks as bytes: what is sent is what arrives, and nothing of the sender's is run."""

from __future__ import annotations

import copy
import io
import json
import pickle
import resource
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import torch as safetensors_torch
from torch import nn
from torch.nn import functional

from tests.pruning.networks import PRUNABLE, Branching, OwnParameter, TwoOutputs
from tests.pruning.oracles import images, outputs, shuffled
from workbench import models
from workbench.pruning.codec import (
    DecodeError,
    build,
    decode,
    describe,
    described_cost,
    encode,
)
from workbench.pruning.cost import cost_of
from workbench.pruning.netadapt import NetAdapt

FORMATS = ["safetensors", "torchscript"]
NETWORKS = {
    **PRUNABLE,
    "own parameter": (OwnParameter, (3, 8, 8)),
    "two outputs": (TwoOutputs, (3, 8, 8)),
    "alexnet": (lambda: models.alexnet(width=0.1), (3, 32, 32)),
    "convnet": (lambda: models.convnet(width=0.1), (3, 32, 32)),
    "mobilenet": (lambda: models.mobilenet(10, width=0.1), (3, 32, 32)),
    "resnet20": (lambda: models.resnet20(width=0.5), (3, 32, 32)),
}


class Modes(nn.Module):
    """Behaves differently in training: dropout as a layer and as a function, and batch norm."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.3)
        self.frozen = nn.Linear(8, 8)
        self.frozen.weight.requires_grad_(False)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.drop(self.norm(self.first(x)))
        x = functional.dropout(torch.relu(self.frozen(x)), 0.4, training=self.training)
        return self.head(x)


class Twins(nn.Module):
    """One module under two names, one weight in two modules, a layer that is not used."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.again = self.first
        self.other = nn.Linear(4, 4)
        self.other.weight = self.first.weight
        self.unused = nn.Linear(2, 2)
        self.register_buffer("offset", torch.arange(4))

    def forward(self, x):
        return self.other(torch.relu(self.again(torch.relu(self.first(x))))) + self.offset


# ---------------------------------------------------------------------- round trips


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_sent_is_what_arrives(name, kind):
    factory, input_shape = NETWORKS[name]
    model = shuffled(factory())
    data = encode(model, input_shape, kind)
    arrived = decode(data)
    assert list(arrived.state_dict()) == list(model.state_dict())
    for one, other in zip(model.state_dict().values(), arrived.state_dict().values(), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    batch = images(input_shape)
    for one, other in zip(outputs(model, batch), outputs(arrived, batch), strict=True):
        assert torch.equal(one, other)
    # and on: what arrived can be sent again
    assert list(decode(encode(arrived, input_shape, kind)).state_dict()) == list(model.state_dict())


@pytest.mark.parametrize("kind", FORMATS)
def test_a_pruned_network_travels(kind):
    model = models.alexnet(width=0.25)
    for candidate in NetAdapt().propose(model, (3, 32, 32)):
        built = candidate.build().eval()
        data = encode(built, (3, 32, 32), kind)
        assert candidate.cost.size_bytes < len(data) < candidate.cost.size_bytes + 60_000
        batch = images((3, 32, 32))
        assert torch.equal(decode(data)(batch), built(batch))


@pytest.mark.parametrize("name", NETWORKS)
def test_build_makes_an_empty_network_of_the_same_form(name):
    factory, input_shape = NETWORKS[name]
    model = shuffled(factory())
    description = describe(model, input_shape)
    built = build(description)
    assert [(key, value.shape) for key, value in built.state_dict().items()] == [
        (key, value.shape) for key, value in model.state_dict().items()
    ]
    assert all(not value.any() for value in built.state_dict().values())
    built.load_state_dict(model.state_dict())
    batch = images(input_shape)
    for one, other in zip(outputs(model, batch), outputs(built, batch), strict=True):
        assert torch.equal(one, other)
    assert describe(built, input_shape) == description
    assert described_cost(description) == cost_of(model, input_shape)


@pytest.mark.parametrize("training", [True, False])
def test_both_modes_behave_as_in_the_source(training):
    model = Modes().train(training)
    arrived = decode(encode(model, (6,)))
    assert arrived.training == training
    batch = images((6,), batch=5)
    for mode in (True, False):
        model.train(mode)
        arrived.train(mode)
        torch.manual_seed(5)
        expected = model(batch)
        torch.manual_seed(5)
        assert torch.equal(arrived(batch), expected)
    assert torch.equal(model.norm.running_mean, arrived.norm.running_mean)
    assert [value.requires_grad for value in model.parameters()] == [
        value.requires_grad for value in arrived.parameters()
    ]


def test_a_part_in_another_mode_stays_so():
    model = Modes()
    model.norm.eval()
    arrived = decode(encode(model, (6,)))
    assert arrived.training
    assert not arrived.norm.training


def test_what_is_shared_arrives_shared():
    model = Twins()
    arrived = decode(encode(model, (4,)))
    assert list(arrived.state_dict()) == list(model.state_dict())
    assert arrived.again is arrived.first
    assert arrived.other.weight is arrived.first.weight
    batch = images((4,))
    assert torch.equal(arrived(batch), model(batch))
    with pytest.raises(ValueError, match=r"unused\.weight is not used by the forward pass"):
        encode(model, (4,), "torchscript")


def test_other_element_types_arrive():
    model = models.convnet(width=0.1).double().eval()
    arrived = decode(encode(model, (3, 32, 32)))
    batch = images((3, 32, 32)).double()
    assert torch.equal(arrived(batch), model(batch))


def test_the_safetensors_file_is_one():
    model = models.resnet20(width=0.25)
    tensors = safetensors_torch.load(encode(model, (3, 32, 32)))
    assert all(torch.equal(tensors[key], value) for key, value in model.state_dict().items())


def test_the_torchscript_archive_runs_on_its_own():
    model = shuffled(models.resnet20(width=0.25))
    data = encode(model, (3, 32, 32), "torchscript")
    with pytest.warns(DeprecationWarning, match=r"torch\.jit\.load"):
        script = torch.jit.load(io.BytesIO(data))
    batch = images((3, 32, 32))
    torch.testing.assert_close(script(batch), model(batch))


def test_gradients_flow_through_what_arrived():
    model = models.alexnet(width=0.1)
    arrived = decode(encode(model, (3, 32, 32)))
    arrived.eval()(images((3, 32, 32))).sum().backward()
    model.eval()(images((3, 32, 32))).sum().backward()
    for one, other in zip(model.parameters(), arrived.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


# ---------------------------------------------------------------------- what can't be described


def test_what_can_not_be_described_is_named():
    class Own(nn.Linear):
        pass

    with pytest.raises(ValueError, match="can't be traced"):
        describe(Branching(), (3, 8, 8))
    with pytest.raises(ValueError, match="no word for the function"):
        describe(_Function(torch.special.bessel_j0), (3,))
    with pytest.raises(ValueError, match="layer lstm is a LSTM"):
        describe(_Layer(lstm=nn.LSTM(3, 3)), (3, 3))
    with pytest.raises(ValueError, match="different steps in training"):
        describe(_Function(lambda x: x, training=lambda x: x + 1), (3,))
    with pytest.raises(ValueError, match="format is 'pickle'"):
        encode(models.resnet20(width=0.25), (3, 32, 32), "pickle")


class _Function(nn.Module):
    def __init__(self, function, training=None):
        super().__init__()
        self.function, self.training_function = function, training

    def forward(self, x):
        if self.training and self.training_function:
            return self.training_function(x)
        return self.function(x)


class _Layer(nn.Module):
    def __init__(self, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        for layer in self.children():
            x = layer(x)
        return x


# ---------------------------------------------------------------------- hostile bytes


@pytest.fixture(scope="module")
def residual():
    return shuffled(PRUNABLE["residual"][0]())


@pytest.fixture(scope="module")
def payloads(residual):
    return {kind: encode(residual, (3, 16, 16), kind) for kind in FORMATS}


@pytest.fixture(scope="module")
def description(residual):
    return json.loads(describe(residual, (3, 16, 16)))


@pytest.fixture(scope="module", autouse=True)
def little_memory():
    """Whoever asks for a gigabyte more than there is now does not get it."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    used = int(pages) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_bytes_are_refused(payloads, kind):
    data = payloads[kind]
    for length in [0, 1, 4, 7, 8, 9, 100, len(data) // 2, len(data) - 1]:
        with pytest.raises(DecodeError):
            decode(data[:length])


@pytest.mark.parametrize("kind", FORMATS)
def test_oversized_bytes_are_refused_unread(payloads, kind):
    with pytest.raises(DecodeError, match="bytes, more than 1,000"):
        decode(payloads[kind], max_bytes=1000)


def with_description(payload, description):
    """A safetensors payload whose description is another one."""
    tensors = safetensors_torch.load(payload)
    return safetensors_torch.save(tensors, metadata={"description": json.dumps(description)})


def changed(description, change):
    other = json.loads(json.dumps(description))
    change(other)
    return other


def layer(description, name):
    return next(entry for entry in description["modules"] if entry["name"] == name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: layer(d, "head").update(type="System"), "unknown layer 'System'"),
        (lambda d: layer(d, "head").update(type=["Linear"]), "unknown layer"),
        (lambda d: layer(d, "head")["arguments"].update(out_features=6), "tensor head.weight is"),
        (lambda d: layer(d, "head")["arguments"].update(out_features=2**40), "out_features is"),
        (lambda d: layer(d, "head")["arguments"].update(out_features=True), "out_features is True"),
        (lambda d: layer(d, "head")["arguments"].update(out_features=2**24), "more than"),
        (lambda d: layer(d, "head")["arguments"].pop("bias"), "takes the arguments"),
        (lambda d: layer(d, "stem")["arguments"].update(stride=0), "stride is 0"),
        (lambda d: layer(d, "stem")["arguments"].update(groups=7), "must be divisible by groups"),
        (lambda d: layer(d, "head").update(name="__class__"), "__class__"),
        (lambda d: layer(d, "head").update(name="a/b"), "is not a module's name"),
        (lambda d: layer(d, "head").update(name="stem.head"), "can't be inside"),
        (lambda d: d.update(format="pickle"), "not of the format"),
        (lambda d: d.update(code="import os"), "has the parts"),
        (lambda d: d.update(steps=[]), "steps must be a list"),
        (lambda d: d.update(input_shape=[0]), "input_shape is"),
        (lambda d: d["steps"][0].update(op="eval"), "unknown operation 'eval'"),
        (lambda d: d["steps"][1].update(name="os.system"), "unknown function 'os.system'"),
        (lambda d: d["steps"][1].update(op="method", name="__class__"), "unknown method"),
        (lambda d: d["steps"][0].update(name=""), "unknown layer ''"),
        (lambda d: d["steps"][0].update(args=[{"value": 99}]), "is no argument"),
        (lambda d: d["steps"][1].update(args=[{"value": 2}]), "is no argument"),
        (lambda d: d["steps"][0].update(args=[{"value": 0}, {"value": 0}]), "does not run"),
        (lambda d: d["steps"].pop(), "output must be the last"),
        (
            lambda d: d["steps"][1].update(
                name="functional.pad", args=[{"value": 1}, [2**30, 2**30]], kwargs={}
            ),
            "elements for one sample, more than",
        ),
        (
            lambda d: d["steps"][1].update(
                name="functional.interpolate", args=[{"value": 1}, [2**20, 2**20]], kwargs={}
            ),
            "elements for one sample, more than",
        ),
        (
            lambda d: d["steps"][1].update(
                name="operator.mul", args=[{"tuple": [1] * 100}, 2**30], kwargs={}
            ),
            "for tensors and numbers only",
        ),
        (
            lambda d: d["steps"][1].update(
                op="method", name="split", args=[{"value": 1}, 1], kwargs={"dim": 5}
            ),
            "does not run",
        ),
    ],
)
def test_a_description_that_asks_for_too_much_is_refused(payloads, description, change, message):
    data = with_description(payloads["safetensors"], changed(description, change))
    with pytest.raises(DecodeError, match=message):
        decode(data, max_bytes=2**30)


def test_tensors_that_do_not_fit_are_refused(payloads, description):
    tensors = safetensors_torch.load(payloads["safetensors"])
    metadata = {"description": json.dumps(description)}
    for change, message in (
        (lambda t: t.pop("stem.bias"), "are missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "unknown"),
        (lambda t: t.update({"stem.bias": torch.zeros(13)}), "stem.bias is"),
        (lambda t: t.update({"stem.bias": torch.zeros(12).double()}), "stem.bias is"),
    ):
        other = dict(tensors)
        change(other)
        with pytest.raises(DecodeError, match=message):
            decode(safetensors_torch.save(other, metadata=metadata))


def test_a_payload_without_a_description_is_refused(residual):
    with pytest.raises(DecodeError, match="holds no description"):
        decode(safetensors_torch.save(residual.state_dict()))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    with pytest.raises(DecodeError, match="carries no description"):
        decode(buffer.getvalue())


class _Bomb:
    """What a pickle would run."""

    def __reduce__(self):
        return (pytest.fail, ("code of the sender was run",))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_pickle_stays_shut(payloads, kind):
    bomb = pickle.dumps(_Bomb())
    with pytest.raises(DecodeError):
        decode(bomb)
    if kind == "torchscript":
        buffer = io.BytesIO(payloads[kind])
        with (
            zipfile.ZipFile(buffer) as source,
            zipfile.ZipFile(other := io.BytesIO(), "w") as target,
        ):
            for info in source.infolist():
                evil = info.filename.endswith(("data.pkl", "constants.pkl", ".py"))
                target.writestr(info.filename, bomb if evil else source.read(info))
        # the pickles and the code are evil, the numbers are not: nobody looks at the former
        assert list(decode(other.getvalue()).state_dict())


def test_a_compressed_archive_is_refused(payloads):
    with (
        zipfile.ZipFile(io.BytesIO(payloads["torchscript"])) as source,
        zipfile.ZipFile(buffer := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for info in source.infolist():
            target.writestr(info.filename, source.read(info))
    with pytest.raises(DecodeError, match="is compressed"):
        decode(buffer.getvalue())


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, "1" * 5000, '{"format": NaN}', "\ud800"]
)
def test_text_that_is_no_description_is_refused(text):
    with pytest.raises(DecodeError):
        build(text)


def test_headers_that_lie_are_refused():
    for length in (0, 1, 2**31, 2**63, 2**64 - 1):
        with pytest.raises(DecodeError):
            decode(struct.pack("<Q", length) + b"{}" * 10)
    deep = b"[" * 200_000
    with pytest.raises(DecodeError):
        decode(struct.pack("<Q", len(deep)) + deep)


# ---------------------------------------------------------------------- fuzzing

edits = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "insert", "delete", "truncate"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


def mutated(data, changes):
    """Bytes with some of them changed; half of the changes are where the structure is."""
    result = bytearray(data)
    for kind, share, value, structural in changes:
        span = min(len(result), 3000) if structural else len(result)
        place = int(share * span)
        if structural and value % 2 and data[:2] == b"PK":
            place = len(result) - 1 - place  # a zip archive has its structure at the end
        if not result:
            break
        if kind == "flip":
            result[place] ^= 1 << value % 8
        elif kind == "set":
            result[place] = value
        elif kind == "insert":
            result[place:place] = bytes([value]) * (1 + value % 17)
        elif kind == "delete":
            del result[place : place + 1 + value]
        else:
            del result[place:]
    return bytes(result)


FUZZ = settings(max_examples=1000, suppress_health_check=list(HealthCheck), print_blob=True)


@pytest.mark.parametrize("kind", FORMATS)
@FUZZ
@given(changes=edits)
def test_mutated_bytes_never_do_harm(payloads, kind, changes):
    try:
        arrived = decode(mutated(payloads[kind], changes), max_bytes=2**26)
    except DecodeError:
        return
    assert sum(value.nbytes for value in arrived.state_dict().values()) <= 2**26


replacements = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(0, 64),
    st.floats(),
    st.text(max_size=10),
    st.sampled_from(
        [
            *("Conv2d", "Linear", "layer", "function", "method", "tensor", "stem", "view"),
            *("operator.mul", "operator.getitem", "torch.cat", "functional.pad", "expand"),
            *("functional.interpolate", "chunk", "split", "torch.stack", "size", "pow"),
        ]
    ),
    st.sampled_from([{"value": 0}, {"value": 3}, {"training": True}, {}, [], [[]], {"tuple": []}]),
)


def paths_of(value, path=()):
    """All places of a JSON value."""
    yield path
    entries = value.items() if isinstance(value, dict) else ()
    for key, entry in enumerate(value) if isinstance(value, list) else entries:
        yield from paths_of(entry, (*path, key))


@FUZZ
@given(
    places=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from("rdc"), replacements),
        min_size=1,
        max_size=3,
    )
)
def test_mutated_descriptions_never_do_harm(description, places):
    other = json.loads(json.dumps(description))
    for share, kind, value in places:
        every = [path for path in paths_of(other) if path]
        if not every:
            break
        *owner, key = every[int(share * len(every))]
        parent = other
        for step in owner:
            parent = parent[step]
        if kind == "r":
            parent[key] = copy.deepcopy(value)
        elif kind == "d":
            del parent[key]
        elif isinstance(parent, list):
            parent.insert(key, json.loads(json.dumps(parent[key])))
    text = json.dumps(other)
    try:
        built = build(text, max_bytes=2**26)
    except DecodeError:
        return
    assert sum(value.nbytes for value in built.state_dict().values()) <= 2**26
