"""Which splits a nuScenes version has: the devkit's predefined ones, and those in ``<version>/splits.json``."""

import json
from pathlib import Path

from schemas.errors import DataError

_PREDEFINED = {
    "trainval": ("train", "val", "train_detect", "train_track"),
    "mini": ("mini_train", "mini_val"),
    "test": ("test",),
}
"""By the ending of the version, the rule of the official evaluation."""


def predefined_splits(version: str) -> tuple[str, ...]:
    """Names of the devkit's splits that go with a version; empty for a version of another family."""
    return next((names for ending, names in _PREDEFINED.items() if version.endswith(ending)), ())


def training_split(version: str) -> str:
    """The split to train on: ``train`` or ``mini_train``.

    Raises:
        DataError: the version has none.
    """
    return _labelled_splits(version, "training")[0]


def validation_split(version: str) -> str:
    """The split to validate on: ``val`` or ``mini_val``.

    Raises:
        DataError: the version has none.
    """
    return _labelled_splits(version, "validation")[1]


def read_custom_splits(data_root: Path, version: str) -> dict[str, tuple[str, ...]]:
    """Splits that the data set brings along in ``<version>/splits.json``; empty without that file.

    Returns:
        Scene names by split name.

    Raises:
        DataError: the file is not a JSON object of lists of scene names, or renames a predefined split.
    """
    path = data_root / version / "splits.json"
    if not path.exists():
        return {}
    form = 'expected {"my_split": ["scene-0001", ...], ...}'
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not readable JSON ({error}): {form}. Mend or remove the file.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: {form}, got {type(content).__name__}. Mend or remove the file.")
    for split, names in content.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{path}, split {split!r}: {form}, got {str(names)[:80]}. Mend or remove the file.")
        if any(split in predefined for predefined in _PREDEFINED.values()):
            raise DataError(
                f"{path}: {split!r} is a predefined split, and the official evaluation would ignore this list of "
                f"{len(names)} scenes. Give the split another name."
            )
    return {split: tuple(names) for split, names in content.items()}


def _labelled_splits(version: str, wanted: str) -> tuple[str, ...]:
    splits = predefined_splits(version)
    if len(splits) < 2:
        hint = f"It has {', '.join(splits)}: give --split {splits[0]}" if splits else "Give --split and name one"
        raise DataError(
            f"{version} has no {wanted} split of its own: only v1.0-trainval and v1.0-mini have. "
            f"{hint} (a split of your own may stand in {version}/splits.json)."
        )
    return splits
