"""Is the simulation true? A live run beside what the simulated testbed predicts for it.

Every message of a run was timed: how many bytes went down and up, how long the client computed,
when the reply was there. The simulated testbed is asked how long the same bytes take over the same
links at the same time; what the client computed is taken as measured. What is left over is what
the simulation does not know: protocol, queues, the SuperLink, a machine that is too busy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from workbench.search import config as settings
from workbench.testbed.simulated import SimulatedTestbed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workbench.search.run import Run
    from workbench.testbed.simulated import SimulatedNetwork

TCP_GOODPUT = 0.956
"""Share of an Ethernet link's rate that TCP leaves for a message's bytes."""


def message_table(run: Run, *, goodput: float = TCP_GOODPUT) -> pd.DataFrame:
    """Return one row for each answered message of the rounds of a live run.

    Columns: iteration, round, client, message, start_s, measured_s (from sending to reply),
    compute_s (measured), predicted_s (transfers as simulated plus measured computing), bound_s
    (the same with links that carry nothing but the message's bytes).

    Rates that were set by hand during the run, and cuts, are not written down in it: their
    messages are measured against the schedule.

    Raises
    ------
    ValueError
        If the run was simulated, so that nothing was measured.
    """
    testbed = run.config["testbed"]
    if testbed["type"] == "SimulatedTestbed":
        raise ValueError(
            f"{run.path} was simulated; to calibrate the simulation run it with NamespaceTestbed()"
        )
    schedule = settings.restore(testbed["schedule"])
    fleet = run.fleet
    networks = {
        name: SimulatedTestbed(schedule=schedule, goodput=share).up(fleet)
        for name, share in (("predicted_s", goodput), ("bound_s", 1.0))
    }
    parts = []
    for event in run.of("round"):
        table = pd.DataFrame(event["clients"])
        table = table[table["status"] == "ok"] if len(table) else table
        if table.empty:
            continue
        measured = (table["transfer_s"] + table["compute_s"]).to_numpy()
        start = table["end_s"].to_numpy() - measured
        part: dict[str, Any] = {
            "iteration": event["iteration"],
            "round": event["round"],
            "client": table["client"],
            "message": table["message"],
            "start_s": start,
            "measured_s": measured,
            "compute_s": table["compute_s"],
        }
        for name, network in networks.items():
            part[name] = _durations(network, table, start)
        parts.append(pd.DataFrame(part))
    if not parts:
        raise ValueError(f"{run.path} has no round yet")
    return pd.concat(parts, ignore_index=True)


def round_table(run: Run, *, goodput: float = TCP_GOODPUT) -> pd.DataFrame:
    """Return one row for each round of a live run.

    Columns: iteration, round, measured_s, predicted_s, bound_s, over_predicted and over_bound
    (measured over the other, minus 1), slowest (the client for whom the round is predicted to
    wait), limits (where the machine and not the network set the pace, in words). A round lasts
    until its last reply; where weights are uploaded in a second step, the steps add up.
    """
    table = message_table(run, goodput=goodput)
    told = {(each["iteration"], each["round"]): each.get("limits", []) for each in run.of("round")}
    rows = []
    for (iteration, number), part in table.groupby(["iteration", "round"], sort=False):
        row: dict[str, Any] = {"iteration": iteration, "round": number}
        for name in ("measured_s", "predicted_s", "bound_s"):
            steps = part.assign(end=part["start_s"] + part[name]).groupby("message", sort=False)
            row[name] = float((steps["end"].max() - steps["start_s"].min()).sum())
        last = int(np.argmax((part["start_s"] + part["predicted_s"]).to_numpy()))
        row["slowest"] = run.fleet.names[int(part["client"].to_numpy()[last])]
        row["limits"] = "; ".join(told.get((iteration, number), []))
        rows.append(row)
    rounds = pd.DataFrame(rows)
    rounds["over_predicted"] = rounds["measured_s"] / rounds["predicted_s"] - 1
    rounds["over_bound"] = rounds["measured_s"] / rounds["bound_s"] - 1
    return rounds


def _durations(
    network: SimulatedNetwork, table: pd.DataFrame, start_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how long each exchange takes: down, compute, up, one after the other."""
    rows = table["client"].to_numpy(dtype=np.int64)
    compute = table["compute_s"].to_numpy(dtype=np.float64)
    start = np.maximum(start_s, 0.0)
    down = network.transfer_s(rows, table["bytes_down"].to_numpy(float), start, "down")
    begin = start + down + compute
    up = network.transfer_s(rows, table["bytes_up"].to_numpy(float), begin, "up")
    return np.asarray(down + compute + up, dtype=np.float64)
