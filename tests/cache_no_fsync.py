"""A fixture for cache tests that import it: what they check is seen by processes, not after a power cut."""

import os

import pytest


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the waiting for the disk, which would take most of the test's time."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
