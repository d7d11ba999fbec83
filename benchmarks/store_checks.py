"""What a cache must be at any moment, whatever became of its writers: compared with one that was written in peace."""

import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cache.reading import Cache, open_cache
from schemas.errors import CacheError

APPENDING, COMMITTING, BETWEEN = "appending", "inside a commit", "between scenes"
_MADE_ONCE = ("fidelity.json",)
"""Measured on whichever frames a run began with."""


@dataclass(frozen=True)
class Reference:
    """A cache written in peace.

    Attributes:
        path: its folder.
        cache: opened.
        files: content of each file by its path within the folder, without the writers' own.
    """

    path: Path
    cache: Cache
    files: dict[str, bytes]

    def steps_of(self, scene: str) -> int:
        """Number of its frames."""
        return int(self.cache.frames["scene_name"].to_pylist().count(scene))

    def files_of(self, scene: str) -> dict[str, bytes]:
        """Its shards, ``valid`` and receipt."""
        place = f"/c.{self.cache.scene_names.index(scene)}."
        return {
            name: content
            for name, content in self.files.items()
            if name == f"receipts/{scene}.parquet" or place in name or name == f"valid{place[:-1]}"
        }


def open_reference(path: Path) -> Reference:
    """Read all of it."""
    return Reference(path, open_cache(path), files_of(path))


def files_of(cache: Path) -> dict[str, bytes]:
    """Content of every file but the writers' own."""
    found = (path for path in sorted(cache.rglob("*")) if path.is_file())
    names = ((path, path.relative_to(cache)) for path in found)
    return {
        name.as_posix(): path.read_bytes()
        for path, name in names
        if ".writers" not in name.parts and name.name not in _MADE_ONCE
    }


@dataclass
class Findings:
    """What was found after kills.

    Attributes:
        kills: writer processes killed, by what they were doing.
        lost: scenes that had been visible and were gone.
        bad: frames that differed from the reference, or could not be read.
        leftovers: files too many, too few or different when everything had been finished.
        looks: how often the reader looked meanwhile.
        complaints: the reader's, and those of writers that failed without being killed.
    """

    kills: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    bad: int = 0
    leftovers: int = 0
    looks: int = 0
    complaints: list[str] = field(default_factory=list)


def look(cache: Path, reference: Reference, before: set[str], findings: Findings) -> set[str]:
    """Compare every visible scene with the reference, file by file and frame by frame.

    Returns:
        The scenes that are visible.
    """
    try:
        opened = open_cache(cache)
    except CacheError as error:
        if (cache / "zarr.json").exists():
            findings.complaints.append(str(error))
            findings.lost += len(before)
        return set()
    findings.lost += len(before - set(opened.scene_names))
    for scene in opened.scene_names:
        wrong_files = [
            name
            for name, content in reference.files_of(scene).items()
            if not (cache / name).is_file() or (cache / name).read_bytes() != content
        ]
        findings.bad += len(wrong_files) + bad_frames(opened, reference, scene)
    return set(opened.scene_names)


def bad_frames(opened: Cache, reference: Reference, scene: str) -> int:
    """Frames of a scene that cannot be read, or read differently than in the reference."""
    names = [spec.name for spec in reference.cache.manifest.features]

    def same(step: int, name: str) -> bool:
        try:
            found = opened.read_step(scene, step, name)
        except CacheError:
            return False
        return np.array_equal(found, reference.cache.read_step(scene, step, name))

    return sum(not all(same(step, name) for name in names) for step in range(reference.steps_of(scene)))


def left_over(cache: Path, reference: Reference) -> list[str]:
    """Differences of a finished cache from the reference, and what its writers left."""
    found = files_of(cache)
    different = [name for name in found.keys() | reference.files.keys() if found.get(name) != reference.files.get(name)]
    partial = cache / ".writers" / "partial"
    return sorted(different) + [entry.name for entry in os.scandir(partial)]


def doing(cache: Path, folder: str, reference: Reference) -> str:
    """What the owner of a partial folder was doing when it died."""
    scene = folder.rpartition(".")[0]
    place = cache / ".writers" / "partial" / folder
    shards = {
        name.split("/")[0]: len(content)
        for name, content in reference.files_of(scene).items()
        if "/c." in name and not name.startswith("valid/")
    }
    sizes = {path.name: path.stat().st_size for path in place.iterdir()} if place.is_dir() else {}
    in_place = any((cache / name).exists() for name in reference.files_of(scene))
    finished = any(sizes.get(name) == size for name, size in shards.items())
    return COMMITTING if in_place or finished else APPENDING


class Reader:
    """A process that opens the cache over and over and reads a scene of it, as a training would."""

    def __init__(self, cache: Path, reference: Reference, report: Path) -> None:
        self._report = report
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._read(cache, reference)
            finally:
                os._exit(1)

    def _read(self, cache: Path, reference: Reference) -> None:
        stopped: list[int] = []
        signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
        findings, chance = Findings(), random.Random(os.getpid())
        visible: set[str] = set()
        while not stopped:
            if (cache / "zarr.json").exists():
                findings.looks += 1
                try:
                    visible = _looked(cache, reference, visible, chance, findings)
                except Exception as error:  # whatever it is, it is the finding
                    findings.complaints.append(f"{type(error).__name__}: {error}")
            time.sleep(0.02)
        self._report.write_text("\n".join([str(findings.looks), *findings.complaints]))
        os._exit(0)

    def stop(self, findings: Findings) -> None:
        """End it, and take down what it saw."""
        os.kill(self._pid, signal.SIGTERM)
        os.waitpid(self._pid, 0)
        looks, *complaints = self._report.read_text().splitlines()
        findings.looks += int(looks)
        findings.complaints += [f"reader: {complaint}" for complaint in complaints]


def _looked(cache: Path, reference: Reference, before: set[str], chance: random.Random, findings: Findings) -> set[str]:
    opened = open_cache(cache)
    visible = set(opened.scene_names)
    if not before <= visible:
        findings.complaints.append(f"scenes vanished: {sorted(before - visible)}")
    if visible and bad_frames(opened, reference, chance.choice(sorted(visible))):
        findings.complaints.append("a frame read differently")
    return visible
