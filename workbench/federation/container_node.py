"""A client's node in a container: ``python -P container_node.py``, spoken to over its input.

The first line tells it what to be; the rest is what `LightNode.serve` expects. What it says goes
to its standard output, line by line, and everything that is printed to its error output.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import traceback
import types
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # The public API loads plots, searches and tables, which a node has no use for: a tenth of a
    # gigabyte and some seconds for each client.
    package = types.ModuleType("workbench")
    package.__path__ = [str(Path(__file__).resolve().parent.parent)]
    sys.modules["workbench"] = package


def main() -> None:
    """Be a node until the input ends."""
    lines, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints is no answer
    os.nice(5)  # clients compute at a lower priority than what carries their messages
    hello = json.loads(lines.readline())

    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    from workbench.federation.light_node import LightNode  # noqa: PLC0415
    from workbench.testbed.channel import Channel, ChannelClosedError  # noqa: PLC0415

    near, far = Channel.pair()

    def pass_on() -> None:
        for line in lines:
            far.send(json.loads(line))
        os._exit(0)  # the notebook has ended, or does not want this node any more

    def say() -> None:
        try:
            while True:
                message, _ = far.receive()
                answers.write(json.dumps(message).encode() + b"\n")
        except (ChannelClosedError, BrokenPipeError):
            os._exit(0)

    for work in (pass_on, say):
        threading.Thread(target=work, daemon=True).start()
    private: Any = load_pem_private_key(hello["key"].encode(), password=None)
    app = _load(hello["app"], Path(hello["folder"]))
    keys = (private, private.public_key())
    LightNode(app, hello["config"], hello["server"], keys).serve(near)


def _load(name: str, folder: Path) -> Any:  # noqa: ANN401  # a ClientApp, once flwr is loaded
    """Return what ``module:function`` makes of a folder, in which the module may lie as well."""
    sys.path.append(str(folder))
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)(folder)


if __name__ == "__main__":
    try:
        main()
    except BaseException:  # noqa: BLE001  # told, and then nothing may wait for the threads
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(1)
