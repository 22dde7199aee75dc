"""What a fleet tells of itself: a table, a summary for a notebook, a fingerprint."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from workbench.fleet import Fleet

_SHOWN = 10


def table(fleet: Fleet) -> pd.DataFrame:
    """Return one row a client: name, tier, class, rate in Mbit/s, samples, classes present."""
    import pandas as pd  # noqa: PLC0415  # clients can do without

    return pd.DataFrame(
        {
            "client": list(fleet.names),
            "tier": [fleet.tiers[index].name for index in fleet.tier],
            "class": [fleet.tiers[index].tier_class for index in fleet.tier],
            "rate_mbit_s": fleet.rate_bps / 1e6,
            "samples": fleet.samples,
            "classes": (fleet.label_counts > 0).sum(axis=1),
        }
    )


def html(fleet: Fleet) -> str:
    """Return a summary and the first rows of the table."""
    made = ", ".join(f"{key} {value}" for key, value in fleet.settings.items())
    rates = fleet.rate_bps / 1e6
    more = len(fleet) - _SHOWN
    return (
        f"<p><b>Fleet</b> of {len(fleet)} clients, {int(fleet.samples.sum()):,} samples, links "
        f"{rates.min():g} to {rates.max():g} Mbit/s ({made})</p>"
        + table(fleet).head(_SHOWN).to_html(index=False, float_format="{:.1f}".format)
        + (f"<p>… and {more} more</p>" if more > 0 else "")
    )


def fingerprint(fleet: Fleet) -> str:
    """Return a SHA-256 of everything that decides who has what data and which link."""
    digest = hashlib.sha256()
    for array in (fleet.label_counts, fleet.tier, fleet.rate_bps):
        digest.update(np.ascontiguousarray(array).tobytes())
    for part in (*fleet.train_indices, *fleet.validation_indices, *fleet.test_indices):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(part).tobytes())
    digest.update("\n".join(fleet.names).encode())
    digest.update(repr(fleet.tiers).encode())
    return digest.hexdigest()
