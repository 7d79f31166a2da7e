"""When a fuzzing test stops trying."""

import time

import pytest

from tests.fuzzing.settings import LONG_S, QUICK_S


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed name of a model is not asked of the hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def until() -> float:
    """Return the time after which examples are left out."""
    return time.monotonic() + QUICK_S


@pytest.fixture
def until_late() -> float:
    """Return the time after which a long test's examples are left out."""
    return time.monotonic() + LONG_S
