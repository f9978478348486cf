"""What the demo's tests share."""

from __future__ import annotations

from collections.abc import Callable

import pages
import pytest


@pytest.fixture(scope="session")
def assert_stands_alone() -> Callable[[str], None]:
    """A check that a page is well-formed and self-contained."""
    return pages.assert_stands_alone
