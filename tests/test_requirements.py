"""What a machine lacks is skipped, unless WORKBENCH_REQUIRE names it."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("required", ["", "docker", "data-sets"])
def test_what_is_missing_is_skipped_with_the_reason(monkeypatch, missing, required):
    monkeypatch.setenv("WORKBENCH_REQUIRE", required)
    with pytest.raises(pytest.skip.Exception, match="data is missing: no folder"):
        missing("data", "no folder")


@pytest.mark.parametrize("required", ["data", "docker, data"])
def test_what_is_required_fails(monkeypatch, missing, required):
    monkeypatch.setenv("WORKBENCH_REQUIRE", required)
    with pytest.raises(pytest.fail.Exception, match=r"data is missing though .*: no folder"):
        missing("data", "no folder")
