"""Node and grid against a SuperLink that is played: lost answers, expired messages, lost nodes."""

from __future__ import annotations

import time
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from workbench.federation import flower, light_node, live_grid, wire
from workbench.federation.client import make_client_app
from workbench.federation.light_node import LightNode
from workbench.federation.live_grid import LiveGrid, SuperLinkLostError
from workbench.federation.machine import too_much_for_superlink
from workbench.pruning import codec

NODE = 7


@pytest.fixture(autouse=True)
def identity():
    flower.ensure_task_identity()


def a_message(seed=0, ttl=60.0) -> Message:
    numbers = np.random.default_rng(seed).random(300, dtype=np.float32)
    content = RecordDict({"weights": ArrayRecord({"float32": Array(numbers)})})
    return Message(content, NODE, "train", ttl=ttl)


def test_a_node_does_not_keep_every_network_that_came_round(digits, small_fleet, monkeypatch):
    monkeypatch.setattr(light_node, "_MODULE_BYTES", 30_000)
    app = make_client_app(digits, small_fleet)
    descriptions = [
        codec.describe(nn.Sequential(nn.Flatten(), nn.Linear(1024, width)), digits.input_shape)
        for width in (1, 2, 3, 4)
    ]
    for description in descriptions:
        app.state.module(description)
    assert list(app.state.modules) == descriptions
    LightNode(app, {}, "127.0.0.1:1", wire.quick_keys())._client.close()
    app.state.modules.clear()
    for description in descriptions:
        app.state.module(description)
    assert list(app.state.modules) == descriptions[-2:]


# ---------------------------------------------------------------------- a node's upload


class Fleet:
    """The SuperLink's side of an upload, as Flower 1.41 does it."""

    def __init__(self, failures):
        self.failures = dict(failures)
        self.wanted: set[str] = set()
        self.stored: dict[str, bytes] = {}
        self.announced = 0
        self.pushes = 0
        self.taken = False

    def PushMessages(self, request):  # noqa: N802  # the name in Flower's protocol
        self.announced += 1
        tree = request.message_object_trees[0]
        if self.taken:  # the driver has the message already: it is not known any more
            return SimpleNamespace(session_id="none", objects_to_push=[])
        self.wanted = {part.object_id for part in wire.iterate_object_tree(tree)}
        missing = [each for each in self.wanted if each not in self.stored]
        return SimpleNamespace(session_id=f"session-{self.announced}", objects_to_push=missing)

    def PushObject(self, request):  # noqa: N802
        self.pushes += 1
        how = self.failures.pop(self.pushes, "")
        if how == "lost request":
            raise httpx.WriteError("cut")
        new = request.object_id in self.wanted and request.object_id not in self.stored
        if how == "old session":
            return SimpleNamespace(stored=False)
        if new:
            self.stored[request.object_id] = request.object_content
        if how == "lost answer":
            raise httpx.ReadError("cut")
        return SimpleNamespace(stored=new)


def node_at(superlink) -> LightNode:
    key = wire.quick_keys()
    node = LightNode(ClientApp(), {}, "127.0.0.1:1", key)
    node._client.close()
    node._client = superlink
    node._node = wire.Node(node_id=NODE)
    return node


@pytest.mark.parametrize(
    "failures",
    [
        {},
        {1: "lost answer"},
        {2: "lost request", 3: "lost request"},
        {1: "old session"},
        {1: "lost answer", 2: "lost answer", 3: "lost answer"},
        {2: "old session", 4: "lost answer", 5: "lost request"},
    ],
)
def test_a_reply_arrives_whole_whatever_is_lost_on_the_way(failures):
    superlink = Fleet(failures)
    received = a_message()
    received.metadata.__dict__["_message_id"] = "m"
    reply = Message(a_message(seed=1).content, reply_to=received)
    node_at(superlink)._send(reply, run_id=1)
    assert set(superlink.stored) == superlink.wanted
    rebuilt = wire.fetch_message(
        wire.get_object_tree(reply),
        lambda request: SimpleNamespace(
            object_found=True,
            object_available=True,
            object_content=superlink.stored[request.object_id],
        ),
        wire.Node(node_id=1),
        1,
    )
    np.testing.assert_array_equal(
        rebuilt.content["weights"]["float32"].numpy(), reply.content["weights"]["float32"].numpy()
    )


def test_an_upload_that_nobody_waits_for_ends():
    superlink = Fleet({1: "lost answer"})
    received = a_message()
    received.metadata.__dict__["_message_id"] = "m"
    reply = Message(a_message(seed=1).content, reply_to=received)
    push = superlink.PushObject

    def taken_meanwhile(request):
        superlink.taken = True
        return push(request)

    superlink.PushObject = taken_meanwhile
    node_at(superlink)._send(reply, run_id=1)
    assert superlink.announced == 2


# ---------------------------------------------------------------------- the driver's grid


class Runtime:
    """The SuperLink's side of the driver."""

    def __init__(self):
        self.sent: list[Message] = []
        self.ready: dict[str, Message] = {}
        self.online = {NODE}
        self.asked = 0
        self.alive = True
        self.confirmed: list[str] = []

    def PushMessages(self, request):  # noqa: N802
        ids = [each.metadata.message_id for each in request.messages_list]
        return SimpleNamespace(message_ids=ids, objects_to_push=[], session_id="s")

    def PullMessages(self, request):  # noqa: N802
        self.asked += 1
        found = [self.ready.pop(each) for each in request.message_ids if each in self.ready]
        self.objects = {
            name: part.deflate()
            for reply in found
            for name, part in wire.get_all_nested_objects(reply).items()
        }
        return SimpleNamespace(
            messages_list=[wire.message_to_proto(each) for each in found],
            message_object_trees=[wire.get_object_tree(each) for each in found],
        )

    def PushObject(self, _):  # noqa: N802
        raise AssertionError("nothing was asked for")

    def PullObject(self, request):  # noqa: N802
        content = self.objects[request.object_id]
        return SimpleNamespace(object_found=True, object_available=True, object_content=content)

    def ConfirmMessageReceived(self, request):  # noqa: N802
        self.confirmed.append(request.message_object_id)

    def GetNodes(self, _):  # noqa: N802
        return SimpleNamespace(nodes=[SimpleNamespace(node_id=each) for each in self.online])

    def SendTaskHeartbeat(self, _):  # noqa: N802
        return SimpleNamespace(success=self.alive)

    def close(self):
        pass

    def reply_to(self, message_id, sent):
        sent.metadata.__dict__["_message_id"] = message_id
        reply = Message(a_message(seed=2).content, reply_to=sent)
        reply.metadata.__dict__["_message_id"] = reply.object_id
        self.ready[message_id] = reply
        return reply


@pytest.fixture
def grid():
    made = []

    def make(*, bells=True, why_lost=str):
        runtime = Runtime()
        grid = LiveGrid(runtime, why_lost=why_lost, bells=bells)
        grid.set_run(flower.empty_run())
        grid.start()
        made.append(grid)
        return grid, runtime

    yield make
    for each in made:
        each.close()


def wait_for(grid, message_id, timeout_s=10):
    end = time.monotonic() + timeout_s
    while not (found := grid.pull_messages([message_id])):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found[0]


@pytest.mark.parametrize("bells", [True, False])
def test_a_reply_is_fetched_when_it_is_announced_or_found(grid, bells):
    grid, runtime = grid(bells=bells)
    message = a_message()
    (message_id,) = grid.push_messages([message])
    assert grid.pull_messages([message_id]) == []
    reply = runtime.reply_to(message_id, message)
    if bells:
        time.sleep(0.8)
        assert runtime.asked == 0  # nobody is asked for what is not there
        grid.arrived(message_id)
    found = wait_for(grid, message_id)
    np.testing.assert_array_equal(
        found.content["weights"]["float32"].numpy(), reply.content["weights"]["float32"].numpy()
    )
    assert runtime.confirmed == [reply.metadata.message_id]
    assert grid.pull_messages([message_id]) == []  # once is enough


def test_a_message_to_a_lost_node_is_answered_at_once(grid):
    grid, _ = grid()
    (first,) = grid.push_messages([a_message()])
    grid.lose_node(NODE, "it was killed")
    (second,) = grid.push_messages([a_message(seed=3)])
    for message_id in (first, second):
        (reply,) = grid.pull_messages([message_id])
        assert reply.error.code == wire.ErrorCode.NODE_UNAVAILABLE
        assert reply.error.reason == "it was killed"
    grid.find_node(NODE)
    (third,) = grid.push_messages([a_message(seed=4)])
    assert grid.pull_messages([third]) == []


def test_a_complete_reply_counts_though_its_node_died_afterwards(grid):
    grid, runtime = grid()
    message = a_message()
    (message_id,) = grid.push_messages([message])
    runtime.reply_to(message_id, message)
    with grid._changed:  # both before anything is fetched
        grid.arrived(message_id)
        grid.lose_node(NODE, "it was killed")
    assert not wait_for(grid, message_id).has_error()


def test_a_message_without_a_reply_in_its_time_is_an_error(grid):
    grid, _ = grid()
    (message_id,) = grid.push_messages([a_message(ttl=0.3)])
    error = wait_for(grid, message_id).error
    assert error.code == flower.LATE
    assert "no reply in its time" in error.reason


def test_a_node_that_is_not_heard_of_is_given_up(grid, monkeypatch):
    monkeypatch.setattr(live_grid, "_LOOK_AROUND_S", 0.2)
    grid, runtime = grid()
    (message_id,) = grid.push_messages([a_message()])
    time.sleep(0.5)
    assert grid.pull_messages([message_id]) == []
    runtime.online.clear()
    assert "has not heard of this node" in wait_for(grid, message_id).error.reason


def test_a_cancelled_message_is_forgotten(grid):
    grid, runtime = grid()
    message = a_message()
    (message_id,) = grid.push_messages([message])
    grid.cancel([message_id])
    runtime.reply_to(message_id, message)
    grid.arrived(message_id)
    time.sleep(0.3)
    assert grid.pull_messages([message_id]) == []
    assert runtime.asked == 0


def test_a_lost_superlink_is_told_where_the_driver_waits(grid):
    reasons = [""]
    grid, _ = grid(why_lost=lambda: reasons[0])
    (message_id,) = grid.push_messages([a_message()])
    reasons[0] = "its process has ended"
    with pytest.raises(SuperLinkLostError, match="its process has ended"):
        wait_for(grid, message_id)
    with pytest.raises(SuperLinkLostError):
        grid.push_messages([a_message()])


def test_a_run_that_the_superlink_ended_is_told(grid, monkeypatch):
    monkeypatch.setattr(live_grid, "_BEAT_S", 0.1)
    grid, runtime = grid()
    runtime.alive = False
    with pytest.raises(SuperLinkLostError, match="has ended this run"):
        wait_for(grid, "none")


def test_a_refused_message_is_an_error(grid, monkeypatch):
    grid, runtime = grid()
    answer = SimpleNamespace(message_ids=[""], objects_to_push=[], session_id="s")
    monkeypatch.setattr(runtime, "PushMessages", lambda _: answer)
    with pytest.raises(ValueError, match="refused 1 of 1 messages"):
        grid.push_messages([a_message()])


# ---------------------------------------------------------------------- the machine's limits


def test_more_than_one_superlink_carries_is_told():
    assert too_much_for_superlink(0.8e9) == ""
    assert "1.6 Gbit/s, but one SuperLink" in too_much_for_superlink(1.6e9)
