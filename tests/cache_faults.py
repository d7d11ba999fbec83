"""Disks that fail, and what a cache folder holds: for tests of crashes, damage and repair."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cache_fakes import SLOTS, SPECS, features_of, token_of, tolerance

from cache.reading import open_cache
from cache.verify import verify
from schemas.errors import CacheError
from schemas.features import FeatureSpec

SMALL_SPECS = (
    FeatureSpec(
        name="bev", dims=("y", "channel"), shape=(3, 2), encoding="affine", scale_dims=("channel",), description="Map."
    ),
    FeatureSpec(name="boxes", dims=("query", "code"), shape=(2, 3), encoding="float32", description="Exact values."),
)
"""Four arrays of a few bytes: enough for every kind of file, few enough to fail at each operation in turn."""

OPERATIONS = ("open", "write", "fsync", "replace", "mkdir", "unlink")

Outcome = Callable[[int, str], str | None]
"""Number and name of an operation to what becomes of it: None (it works), 'fail', 'short' or 'interrupt'."""


class FaultyDisk:
    """Counts file operations, and lets chosen ones fail as a disk would.

    Attributes:
        names: the operations so far.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, outcome: Outcome, error: int) -> None:
        self.names: list[str] = []
        self._outcome = outcome
        self._error = error
        for name in OPERATIONS:
            monkeypatch.setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.names.append(name)
            outcome = self._outcome(len(self.names), name)
            if outcome == "fail":
                raise OSError(self._error, os.strerror(self._error))
            if outcome == "interrupt":
                raise KeyboardInterrupt
            if outcome == "short" and name == "write":
                descriptor, data = arguments
                return operation(descriptor, data[: (len(data) + 1) // 2])
            return operation(*arguments, **options)

        return counted


@contextmanager
def faulty_disk(outcome: Outcome, error: int = errno.EIO) -> Iterator[FaultyDisk]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield FaultyDisk(monkeypatch, outcome, error)


def failing_disk(fails: Callable[[int, str], bool], error: int) -> Any:
    return faulty_disk(lambda number, name: "fail" if fails(number, name) else None, error)


def operations_of(action: Callable[[], object]) -> list[str]:
    """The file operations of an action, in order."""
    with faulty_disk(lambda _number, _name: None) as disk:
        action()
    return disk.names


def error_of(action: Callable[[], object]) -> CacheError | None:
    try:
        action()
    except CacheError as error:
        return error
    return None


def files_of(root: Path) -> dict[str, bytes]:
    """Everything a reader could see, by its path relative to the cache."""
    found = (path for path in root.rglob("*") if path.is_file() and ".writers" not in path.parts)
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def flipped(path: Path, offset: int) -> None:
    """Flip one bit of a file in place: to whoever reads meanwhile, it is never shorter."""
    data = path.read_bytes()
    place = offset % len(data)
    with path.open("r+b") as file:
        file.seek(place)
        file.write(bytes([data[place] ^ 1]))


def unfinished(root: Path) -> list[Path]:
    """Partial folders of writers."""
    return list((root / ".writers" / "partial").iterdir())


def assert_sound(root: Path, at_least: set[str], specs: tuple[FeatureSpec, ...] = SPECS) -> set[str]:
    """Every visible scene is whole and right, the given ones are visible, and nothing is damaged."""
    cache = open_cache(root)
    for slot in SLOTS:
        if slot.name in cache.scene_names:
            for step in range(slot.length):
                for spec in specs:
                    exact = features_of(slot, step, specs)[spec.name]
                    found = cache.read(token_of(slot, step), spec.name)
                    assert np.abs(found - exact).max() <= tolerance(spec, exact, "int8")
    assert at_least <= set(cache.scene_names)
    assert verify(root, lambda _: None).harmful == ()
    return set(cache.scene_names)
