"""Data directories and tables that are not what nuScenes promises: each is refused with one clear message."""

import gc
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from made_nuscenes import MadeNuscenes, make_nuscenes

from scenes.devkit import open_devkit
from scenes.table_checks import FIELDS
from scenes.tables import load_tables
from schemas.errors import DataError

VERSION, SCENE = "v1.0-trainval", "scene-0003"
SAMPLE, ANNOTATION = f"{SCENE} sample 1", f"{SCENE} object 4 at 1"
Damage = Callable[[MadeNuscenes], object]


def refusal(data_root: Path, version: str = VERSION) -> str:
    """The message with which a data directory is refused; the garbage collector must be on again."""
    with pytest.raises(DataError) as caught:
        load_tables(data_root, version)
    assert gc.isenabled()
    return str(caught.value)


def damaged(tmp_path: Path, damage: Damage) -> str:
    made = make_nuscenes((SCENE, "scene-0012"))
    damage(made)
    return refusal(made.write(tmp_path, images=False))


def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere").startswith(f"there is no directory {tmp_path}/nowhere: give --data")


def test_a_directory_that_is_not_nuscenes(tmp_path: Path) -> None:
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path} is not a nuScenes directory: expected tables such as v1.0-mini/")
    assert message.endswith("the folder that holds samples/, maps/ and v1.0-*/.")
    (tmp_path / "v1.0-mini").mkdir()
    (tmp_path / "v1.0-mini" / "sample_data.json").write_text("[]")
    assert refusal(tmp_path / "v1.0-mini").endswith(f"and v1.0-*/, here {tmp_path}.")


@pytest.mark.parametrize(
    "version", ["v1.0-mini", "v2", "", ".", "..", "v1.0-trainval/", "../data/v1.0-trainval", "/etc"]
)
def test_a_version_that_is_not_there(tmp_path: Path, version: str) -> None:
    message = refusal(make_nuscenes().write(tmp_path, images=False), version)
    assert f"has no version {version!r}: it has v1.0-trainval. Give --version one of them." in message


@pytest.mark.parametrize("table", sorted(FIELDS))
def test_a_missing_table_is_named(tmp_path: Path, table: str) -> None:
    root = make_nuscenes().write(tmp_path, images=False)
    (root / VERSION / f"{table}.json").unlink()
    message = refusal(root)
    if table == "sample_data":  # without it the folder is not recognised as a version at all
        assert "is not a nuScenes directory" in message
    else:
        assert f"{root}/{VERSION} lacks {table}.json: nuScenes v1.0 has 13 tables there." in message


@pytest.mark.parametrize("table", sorted(FIELDS))
def test_a_table_that_is_cut_short_is_named(tmp_path: Path, table: str) -> None:
    root = make_nuscenes().write(tmp_path, images=False)
    path = root / VERSION / f"{table}.json"
    path.write_text(path.read_text()[:-1])
    assert refusal(root).startswith(f"{path} is not readable JSON: ")


@pytest.mark.parametrize("table", ["sample", "sample_data", "scene", "map", "calibrated_sensor"])
@pytest.mark.parametrize("content", ['{"a": 1}', "[1, 2]", "null"])
def test_a_table_that_is_no_list_of_rows_is_named(tmp_path: Path, table: str, content: str) -> None:
    made = make_nuscenes()
    made.texts[f"{VERSION}/{table}.json"] = content
    assert refusal(made.write(tmp_path, images=False)).startswith(f"{table}.json: expected a list of rows.")


@pytest.mark.parametrize(("table", "fields"), [(table, fields) for table, fields in FIELDS.items() if fields])
def test_a_missing_field_is_named(tmp_path: Path, table: str, fields: tuple[str, ...]) -> None:
    made = make_nuscenes()
    for field in fields:
        row = dict(made.tables[table][0])
        del made.tables[table][0][field]
        message = refusal(made.write(tmp_path, images=False))
        assert message.startswith(f"{table}.json, row {row['token']!r}: the field {field} is missing.")
        made.tables[table][0] = row


@pytest.mark.parametrize("table", sorted(FIELDS))
def test_a_duplicated_token_is_named(tmp_path: Path, table: str) -> None:
    def duplicate(made: MadeNuscenes) -> None:
        made.tables[table].append(dict(made.tables[table][0]))

    token = make_nuscenes((SCENE, "scene-0012")).tables[table][0]["token"]
    expected = f"{table}.json, row {token!r}: 2 rows have the same token; it must be unique."
    assert damaged(tmp_path, duplicate).startswith(expected)


def test_two_scenes_of_one_name(tmp_path: Path) -> None:
    message = damaged(tmp_path, lambda made: made.tables["scene"][1].update(name=SCENE))
    assert message.startswith(f"scene.json, row {SCENE!r}: 2 rows have the same name")


@pytest.mark.parametrize("token", [None, 7, ""])
def test_a_token_that_is_no_text(tmp_path: Path, token: object) -> None:
    message = damaged(tmp_path, lambda made: made.tables["log"][0].update(token=token))
    assert "token must be a non-empty text" in message or "log_tokens names 'log', which log.json" in message


@pytest.mark.parametrize(
    ("table", "field", "target"),
    [
        ("calibrated_sensor", "sensor_token", "sensor"),
        ("instance", "category_token", "category"),
        ("sample", "scene_token", "scene"),
        ("sample_annotation", "instance_token", "instance"),
        ("sample_annotation", "sample_token", "sample"),
        ("sample_annotation", "prev", "sample_annotation"),
        ("sample_annotation", "next", "sample_annotation"),
        ("sample", "prev", "sample"),
        ("sample", "next", "sample"),
        ("sample_data", "calibrated_sensor_token", "calibrated_sensor"),
        ("sample_data", "ego_pose_token", "ego_pose"),
        ("sample_data", "sample_token", "sample"),
        ("scene", "first_sample_token", "sample"),
        ("scene", "last_sample_token", "sample"),
        ("scene", "log_token", "log"),
    ],
)
def test_a_dangling_reference_is_named(tmp_path: Path, table: str, field: str, target: str) -> None:
    made = make_nuscenes()
    row = made.tables[table][1]
    row[field] = "nobody"
    message = refusal(made.write(tmp_path, images=False))
    assert message.startswith(f"{table}.json, row {row['token']!r}: {field} names 'nobody', which {target}.json does")


def test_a_dangling_attribute_is_named(tmp_path: Path) -> None:
    message = damaged(tmp_path, lambda m: m.row("sample_annotation", token=ANNOTATION).update(attribute_tokens=["x"]))
    assert "attribute_tokens names 'x', which attribute.json does not have" in message


def test_a_log_without_a_map_is_named(tmp_path: Path) -> None:
    message = damaged(tmp_path, lambda made: made.tables["map"][0].update(log_tokens=[]))
    assert message.startswith("log.json, row 'log': no row of map.json lists this log")


def test_a_missing_map_mask_is_named(tmp_path: Path) -> None:
    message = damaged(tmp_path, lambda made: made.absent.add("maps/map.png"))
    assert f"{tmp_path} lacks the map mask maps/map.png, which v1.0-trainval/map.json names" in message


def test_a_map_outside_the_data_root_is_refused(tmp_path: Path) -> None:
    message = damaged(tmp_path, lambda made: made.tables["map"][0].update(filename="../map.png"))
    assert "the path '../map.png' leaves the data directory" in message


def test_a_map_outside_the_data_root_is_refused_where_it_exists(tmp_path: Path) -> None:
    (tmp_path / "map.png").touch()
    message = damaged(tmp_path / "data", lambda made: made.tables["map"][0].update(filename="../map.png"))
    assert message.startswith("map.json, row 'map': the path '../map.png' leaves the data directory")


def test_what_only_the_devkit_minds_is_told_with_its_words(tmp_path: Path) -> None:
    """With a lidarseg.json the devkit wants a folder of labels, which is no business of ours."""
    made = make_nuscenes()
    made.texts[f"{VERSION}/lidarseg.json"] = "[]"
    message = refusal(made.write(tmp_path, images=False))
    assert message.startswith(f"nuscenes-devkit cannot load {VERSION} from {tmp_path}: AssertionError: Please use")


def swap_timestamps(made: MadeNuscenes) -> None:
    first, second = made.row("sample", token=SAMPLE), made.row("sample", token=f"{SCENE} sample 2")
    first["timestamp"], second["timestamp"] = second["timestamp"], first["timestamp"]


def equal_timestamps(made: MadeNuscenes) -> None:
    made.row("sample", token=SAMPLE)["timestamp"] = made.row("sample", token=f"{SCENE} sample 0")["timestamp"]


def split_chain(made: MadeNuscenes) -> None:
    made.row("sample", token=SAMPLE)["next"] = ""
    made.row("sample", token=f"{SCENE} sample 2")["prev"] = ""


def close_chain(made: MadeNuscenes) -> None:
    made.row("sample", token=f"{SCENE} sample 2")["next"] = f"{SCENE} sample 0"
    made.row("sample", token=f"{SCENE} sample 0")["prev"] = f"{SCENE} sample 2"


def join_scenes(made: MadeNuscenes) -> None:
    made.row("sample", token=f"{SCENE} sample 2")["next"] = "scene-0012 sample 0"
    made.row("sample", token="scene-0012 sample 0")["prev"] = f"{SCENE} sample 2"


def second_key_frame(made: MadeNuscenes) -> None:
    row = made.row("sample_data", token=f"{SAMPLE} CAM_BACK")
    made.tables["sample_data"].append(row | {"token": "twin"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (swap_timestamps, r"sample.json, row '.* sample [01]': timestamps are out of order: (prev|next) is '"),
        (equal_timestamps, r"sample.json, row '.* sample [01]': timestamps are out of order"),
        (split_chain, r"scene.json, row '.*': its samples form 2 chains of prev/next, expected one"),
        (close_chain, r"sample.json, row '.*': timestamps are out of order"),
        (join_scenes, r"sample.json, row '.* sample 2': next is 'scene-0012 sample 0', but that row's prev"),
        (
            lambda made: made.row("sample", token=SAMPLE).update(prev=""),
            r"sample.json, row '.* sample 0': next is '.* sample 1', but that row's prev is ''",
        ),
        (
            lambda made: made.row("scene", name=SCENE).update(nbr_samples=4),
            r"scene.json, row '.*': nbr_samples is 4, but sample.json has 3",
        ),
        (
            lambda made: made.row("scene", name=SCENE).update(first_sample_token=SAMPLE),
            r"scene.json, row '.*': first_sample_token '.* sample 1' is not that end of the scene's chain",
        ),
        (
            lambda made: made.row("scene", name=SCENE).update(last_sample_token="scene-0012 sample 2"),
            r"scene.json, row '.*': last_sample_token 'scene-0012 sample 2' is not that end",
        ),
        (
            lambda made: made.row("sample_annotation", token=ANNOTATION).update(next=""),
            r"sample_annotation.json, row '.* at 2': prev is '.* at 1', but that row's next is ''",
        ),
        (
            lambda made: made.row("sample_annotation", token=ANNOTATION).update(sample_token=f"{SCENE} sample 2"),
            r"sample_annotation.json, row '.* object 4 at [12]': timestamps are out of order",
        ),
        (
            lambda made: made.row("sample_annotation", token=ANNOTATION).update(instance_token=f"{SCENE} object 3"),
            r"sample_annotation.json, row '.* object 4 at [012]': (prev|next) is",
        ),
        (second_key_frame, r"sample_data.json, row 'twin': sample '.* sample 1' has a second key frame of CAM_BACK"),
        (
            lambda made: made.row("sample_data", token=f"{SAMPLE} CAM_BACK").update(is_key_frame=False),
            r"sample.json, row '.* sample 1': it has no key frame of CAM_BACK",
        ),
        (
            lambda made: made.row("sample_data", token=f"{SAMPLE} LIDAR_TOP").update(is_key_frame=False),
            r"sample.json, row '.* sample 1': it has no key frame of LIDAR_TOP",
        ),
    ],
)
def test_a_broken_promise_between_rows_is_named(tmp_path: Path, damage: Damage, message: str) -> None:
    assert re.match(message, damaged(tmp_path, damage))


def test_nothing_is_saved_of_bad_tables(tmp_path: Path) -> None:
    made = make_nuscenes()
    made.tables["calibrated_sensor"][0]["translation"] = [float("nan")] * 3
    with pytest.raises(DataError):
        load_tables(made.write(tmp_path / "data", images=False), VERSION, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_the_garbage_collector_stays_off_if_it_was(tmp_path: Path) -> None:
    root = make_nuscenes().write(tmp_path, images=False)
    gc.disable()
    try:
        open_devkit(root, VERSION)
        assert not gc.isenabled()
    finally:
        gc.enable()
