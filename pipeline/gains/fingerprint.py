"""What makes two runs comparable, as short hashes: the same study, and within it the same row."""

import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.recipe import Recipe
from scenes.scene_tables import SceneTables
from scenes.synthetic.options import GENERATOR_VERSION
from scenes.synthetic.write import is_world
from schemas.manifest import Manifest
from train.distiller_catalogue import needs_cache
from train.initialisation import identity_of

STUDY_VERSION = 1
"""Raised whenever a change of the program changes what a student learns or how it is scored: old runs stand apart."""

PACKAGES = ("torch", "numpy", "nuscenes-devkit")
"""Those whose arithmetic the numbers depend on; a release of the same ``major.minor`` counts as the same."""

_LENGTH = 12


def short_hash(content: object) -> str:
    """The first digits of the sha256 of some JSON value."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:_LENGTH]


def student_hash(recipe: Recipe, *, distilled: bool) -> str:
    """Short hash of all that the recipe says about the student's numbers, but for the seed.

    Args:
        recipe: with the student.
        distilled: whether the distillers count, with the settings that they read; those of others never do.

    Raises:
        CheckpointError: a file of initial weights cannot be read; it counts by its content.
    """
    training = recipe.student.training
    numbers: dict[str, Any] = training.what_changes_numbers()
    options = numbers.pop("distillation")
    del numbers["seed"]
    if distilled and needs_cache(training.distillation.names):
        numbers["distillation"] = options
    detector = recipe.student.detector.model_dump(mode="json")
    return short_hash({"detector": detector, "training": numbers, "init": identity_of(training.init)})


def data_hash(recipe: Recipe, tables: SceneTables) -> str:
    """Short hash of the data set: of its tables, or of what the embedded world is made from.

    The same world rendered by processors of another make differs in a few pixels and, now and then, in a LiDAR return;
    so the tables do too. A study that goes on there goes on with the same data for all that its numbers can show.
    """
    if recipe.world is not None and is_world(tables.data_root, recipe.world):
        return short_hash({"generator": GENERATOR_VERSION, "options": recipe.world.model_dump(mode="json")})
    return tables.tables_sha256[:_LENGTH]


def cache_hash(manifest: Manifest, data: str) -> str:
    """Short hash of what a cache's fingerprint covers, its data set known by ``data_hash``."""
    fields = manifest.hashed_fields()
    return short_hash({**fields, "dataset": {**fields["dataset"], "tables_sha256": data}})


def surroundings(recipe: Recipe, tables: SceneTables, split: str) -> Mapping[str, Any]:
    """What a run's numbers depend on beside the student's recipe and the cache, under the names of the records."""
    return {
        "data": data_hash(recipe, tables),
        "split": split,
        "generator": 0 if recipe.world is None else GENERATOR_VERSION,
        "packages": installed_packages(),
        "program": f"{metadata.version('bev-teacher-cache')}/{STUDY_VERSION}",
    }


def installed_packages() -> str:
    """Names and ``major.minor`` of ``PACKAGES``, as ``torch 2.13, numpy 1.26``."""
    return ", ".join(f"{name} {'.'.join(metadata.version(name).split('.')[:2])}" for name in PACKAGES)


def machine_in_words() -> str:
    """Processor, cores and system, without the machine's name."""
    cores = len(os.sched_getaffinity(0))
    return f"{_processor()}, {cores} core{'s' if cores > 1 else ''}, {platform.system()}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    name = found.group(1) if found else platform.processor() or platform.machine()
    return re.sub(r"\s+\d+-Core Processor$", "", name.strip())
