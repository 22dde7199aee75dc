"""A search that takes a second, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.search.small import small_search
from workbench.search.search import Search


@pytest.fixture
def search() -> Callable[..., Search]:
    """Return what makes the small search, with other settings where given."""

    def make(**settings: Any) -> Search:
        return small_search(**settings)

    return make
