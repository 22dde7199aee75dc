"""A Flower node in a few megabytes: one process per client, which runs the ClientApp itself.

A stock SuperNode starts a new Python with torch for every message; 56 of them do not fit into a
machine. This one speaks the same protocol to the same SuperLink, over its client's link, but
keeps the ClientApp loaded. It is forked from a process that has everything loaded already.

A stock node asks for messages every 3 s, whether there are any or not. Here a bell rings when the
driver has sent one: waiting adds nothing to a round, and idle nodes cost the SuperLink nothing.
"""

from __future__ import annotations

import select
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import torch
from flwr.app import Context, RecordDict

from workbench.federation import wire
from workbench.federation.client import Clients
from workbench.testbed import linux

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp

    from workbench.testbed.channel import Channel

_ASK_ANYWAY_S = 20.0
"""A node asks this often without being told to, should a bell have been missed."""
_CONNECTIONS = 2
_MODULE_BYTES = 16 * 2**20
"""Room for modules that came round before: a search makes new ones in every iteration."""


class LightNode:
    """One client's node.

    Parameters
    ----------
    client_app
        What answers messages.
    node_config
        What the ClientApp finds in its context, ``partition-id`` above all.
    server
        Address of the SuperLink, ``host:port``.
    keys
        Private and public key; a node that comes back with its keys is the node it was.
    """

    def __init__(
        self,
        client_app: ClientApp,
        node_config: dict[str, Any],
        server: str,
        keys: Any,  # noqa: ANN401  # cryptography's key pair
    ) -> None:
        self._app = client_app
        if isinstance(client_app, Clients):
            client_app.state.module_bytes = _MODULE_BYTES
        self._config = node_config
        self._public = wire.public_key_to_bytes(keys[1])
        self._client = wire.Door(server, insecure=True).client(
            wire.FleetHttpClient,
            [
                wire.Versions("SuperNode"),
                wire.NodeAuthHttpInterceptor(*keys),
            ],
        )
        self._node = wire.Node()
        self._context: Context | None = None
        self._pool = ThreadPoolExecutor(_CONNECTIONS)

    def serve(self, channel: Channel) -> None:
        """Answer messages until the process is ended.

        The channel first brings ``{"known": node id or 0}``, and then ``{"ring": n}`` whenever n
        messages were sent to this node. It takes away ``{"node": id}`` once the SuperLink knows
        the node, and ``{"replied": message id}`` when a reply is complete there.
        """
        linux.keep_memory_small()
        torch.set_num_threads(1)  # threads of the parent are gone; cores are shared by all clients
        known, _ = channel.receive()
        self._join(int(known["known"]))
        channel.send({"node": self._node.node_id})
        threading.Thread(target=self._beat, daemon=True).start()
        due = int(bool(known["known"]))  # what a node that was killed has left unanswered
        while True:
            for _ in range(due):
                answered = self._answer_one()
                if answered:
                    channel.send({"replied": answered})
            due = 0
            while select.select([channel], [], [], 0 if due else _ASK_ANYWAY_S)[0]:
                bell, _ = channel.receive()
                due += int(bell["ring"])
            due = due or 1  # a bell may have been missed

    # ------------------------------------------------------------------ being a node

    def _join(self, known: int) -> None:
        interval = wire.HEARTBEAT_DEFAULT_INTERVAL
        if known:
            # The SuperLink still takes the node that was killed for present.
            self._node = wire.Node(node_id=known)
            self._ask(self._client.DeactivateNode, wire.DeactivateNodeRequest(node_id=known))
        else:
            self._ask(
                self._client.RegisterNode, wire.RegisterNodeFleetRequest(public_key=self._public)
            )
        request = wire.ActivateNodeRequest(public_key=self._public, heartbeat_interval=interval)
        self._node = wire.Node(node_id=self._ask(self._client.ActivateNode, request).node_id)

    def _beat(self) -> None:
        request = wire.SendNodeHeartbeatRequest(
            node=self._node, heartbeat_interval=wire.HEARTBEAT_DEFAULT_INTERVAL
        )
        while True:
            time.sleep(wire.HEARTBEAT_DEFAULT_INTERVAL * 0.7)
            self._ask(self._client.SendNodeHeartbeat, request)

    @staticmethod
    def _ask(call: Any, request: Any) -> Any:  # noqa: ANN401  # protobuf classes have no common type
        """Ask as long as it takes: a cut link may be healed."""
        return wire.patiently(lambda: call(request), until=lambda: False)

    # ------------------------------------------------------------------ one message

    def _answer_one(self) -> str:
        """Answer a message, if there is one; return its id when the reply is delivered."""
        waiting = self._ask(self._client.PullMessages, wire.PullMessagesRequest(node=self._node))
        if not waiting.messages_list:
            return ""
        head = wire.message_from_proto(waiting.messages_list[0])
        message_id, run_id = head.metadata.message_id, head.metadata.run_id
        try:
            message = wire.fetch_message(
                waiting.message_object_trees[0],
                lambda request: self._ask(self._client.PullObject, request),
                self._node,
                run_id,
            )
            confirm = wire.ConfirmMessageReceivedRequest(
                node=self._node, run_id=run_id, message_object_id=message_id
            )
            self._ask(self._client.ConfirmMessageReceived, confirm)
            reply = self._reply(message, run_id)
            del message  # else it fills memory for as long as a slow link takes for the reply
            self._send(reply, run_id)
        except (httpx.HTTPStatusError, wire.ObjectPullError) as error:
            # The message has expired or its run is over: nobody waits for the reply.
            print(f"message {message_id[:8]} was given up: {error}")  # noqa: T201  # to the log
            return ""
        return message_id

    def _reply(self, message: wire.Message, run_id: int) -> wire.Message:
        if self._context is None or self._context.run_id != run_id:
            self._context = Context(
                run_id=run_id,
                node_id=self._node.node_id,
                node_config=self._config,
                state=RecordDict(),
                run_config={},
            )
        try:
            return self._app(message, self._context)
        except Exception as error:  # noqa: BLE001  # a client that fails is an answer, not an end
            traceback.print_exc()
            reason = "".join(traceback.format_exception_only(error)).strip()
            code = wire.ErrorCode.CLIENT_APP_RAISED_EXCEPTION
            return wire.Message(wire.Error(code, reason), reply_to=message)

    def _send(self, reply: wire.Message, run_id: int) -> None:
        """Deliver a reply: announce it, then push the objects that the SuperLink lacks.

        In Flower 1.41 an object that is pushed twice is refused, even where the answer to the
        first attempt was lost on the way. So after a failure a refusal means that it may be there;
        whether it is, announcing the same reply once more tells.
        """
        with wire.no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            tree = wire.get_object_tree(reply)
            objects = wire.get_all_nested_objects(reply)
        head = wire.remove_content_from_message(reply) if reply.has_content() else reply
        announce = wire.PushMessagesRequest(
            node=self._node,
            messages_list=[wire.message_to_proto(head)],
            message_object_trees=[tree],
        )

        def push(object_id: str) -> bool:
            """Push an object; False if it is not certain that the SuperLink has it."""
            request = wire.PushObjectRequest(
                node=self._node,
                run_id=run_id,
                object_id=object_id,
                object_content=objects[object_id].deflate(),
                session_id=session.session_id,
            )
            return bool(self._ask(self._client.PushObject, request).stored)

        while True:
            session = self._ask(self._client.PushMessages, announce)
            missing = list(dict.fromkeys(session.objects_to_push))
            if all(list(self._pool.map(push, missing))):
                return
