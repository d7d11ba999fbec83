"""Predefined and custom splits, and versions that have none."""

from pathlib import Path

import pytest
from made_nuscenes import make_nuscenes

from scenes.splits import predefined_splits, training_split, validation_split
from scenes.tables import load_tables
from schemas.errors import DataError

VERSION = "v1.0-trainval"
VAL, OTHER = "scene-0003", "scene-0012"


@pytest.fixture(scope="module")
def made_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nuscenes().write(tmp_path_factory.mktemp("made"), images=False)


@pytest.mark.parametrize(
    ("version", "training", "validation"),
    [("v1.0-trainval", "train", "val"), ("v1.0-mini", "mini_train", "mini_val")],
)
def test_a_labelled_version_has_a_training_and_a_validation_split(version: str, training: str, validation: str) -> None:
    assert training_split(version) == training
    assert validation_split(version) == validation


def test_a_version_without_labels_has_neither() -> None:
    with pytest.raises(DataError, match=r"v1.0-test has no training split .*It has test: give --split test"):
        training_split("v1.0-test")
    with pytest.raises(DataError, match=r"v1.0-test has no validation split of its own"):
        validation_split("v1.0-test")


def test_a_version_of_another_family_needs_a_split_by_name() -> None:
    assert predefined_splits("mine") == ()
    with pytest.raises(DataError, match=r"mine has no training split .*Give --split and name one .*mine/splits.json"):
        training_split("mine")


def test_a_version_of_another_family_may_bring_its_own_splits(tmp_path: Path) -> None:
    made = make_nuscenes((VAL,), version="mine")
    made.splits = {"train": [VAL]}
    with pytest.raises(DataError, match="'train' is a predefined split"):
        load_tables(made.write(tmp_path, images=False), "mine")
    made.splits = {"my_train": [VAL]}
    assert load_tables(made.write(tmp_path, images=False), "mine").scene_names("my_train") == (VAL,)


def test_a_version_of_no_scenes_has_only_empty_splits(tmp_path: Path) -> None:
    made = make_nuscenes(())
    with pytest.raises(DataError, match=r"split 'val' has none of its scenes in .*available are none"):
        load_tables(made.write(tmp_path, images=False), VERSION).scene_names("val")


def test_splits_are_the_devkits_and_those_of_splits_json(tmp_path: Path) -> None:
    made = make_nuscenes((VAL, OTHER, "scene-0001"))
    made.splits = {"mine": [OTHER, VAL]}
    tables = load_tables(made.write(tmp_path), VERSION)
    assert tables.scene_names("val") == (VAL, OTHER)
    assert tables.scene_names("train") == ("scene-0001",)
    assert tables.scene_names("mine") == (VAL, OTHER)
    assert tables.is_predefined("val")
    assert not tables.is_predefined("mine")


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("mini_val", r"split 'mini_val' does not belong to v1.0-trainval .*available are val \(2 scenes\)"),
        ("train", r"split 'train' has none of its scenes in v1.0-trainval .*available are val \(2 scenes\)"),
        ("vall", r"split 'vall' does not belong to .*splits.json"),
    ],
)
def test_a_split_that_does_not_match_is_refused(made_root: Path, split: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_tables(made_root, VERSION).scene_names(split)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ('{"mine": ["scene-0404"]}', "1 of its scenes are not in scene.json .scene-0404."),
        ('{"mine": "scene-0003"}', "split 'mine': expected .* got scene-0003"),
        ('{"val": ["scene-0003"]}', "'val' is a predefined split"),
        ("[1]", "expected .* got list"),
        ("{", "is not readable JSON"),
    ],
)
def test_a_damaged_splits_file_is_refused(tmp_path: Path, splits: str, message: str) -> None:
    made = make_nuscenes((VAL,))
    made.texts[f"{VERSION}/splits.json"] = splits
    with pytest.raises(DataError, match=message):
        load_tables(made.write(tmp_path), VERSION)
