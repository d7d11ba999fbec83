"""Writing a synthetic world: the same bytes whatever the workers, and never half a world under its name."""

import fcntl
import hashlib
import os
from pathlib import Path

import pytest

from scenes.synthetic import WorldOptions, is_world, write_world
from scenes.synthetic.unfinished import MARK
from scenes.synthetic.write import SIGNATURE
from schemas.errors import DataError

SMALL = WorldOptions(
    train_scenes=1, tune_scenes=1, val_scenes=1, frames_per_scene=2, image_width=64, image_height=36, seed=3
)


def _write(path: Path, options: WorldOptions = SMALL, workers: int = 1) -> list[str]:
    told: list[str] = []
    write_world(options, path, workers, told.append)
    return told


def _hashes(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synthetic") / "world"
    assert _write(path) == ["scene-0001", "scene-0003", "scene-0077"]
    return path


def test_bytes_do_not_depend_on_the_number_of_workers(world: Path, tmp_path: Path) -> None:
    assert _write(tmp_path / "world", workers=2) == ["scene-0001", "scene-0003", "scene-0077"]
    assert _hashes(tmp_path / "world") == _hashes(world)


def test_scenes_do_not_depend_on_one_another(world: Path, tmp_path: Path) -> None:
    _write(tmp_path / "world", SMALL.model_copy(update={"train_scenes": 0, "tune_scenes": 0}))
    alone = _hashes(tmp_path / "world")
    together = _hashes(world)
    pictures = [name for name in alone if name.startswith("samples/")]
    assert len(pictures) == 2 * 7
    assert all(alone[name] == together[name] for name in pictures)


def test_another_seed_is_another_world(world: Path, tmp_path: Path) -> None:
    other = SMALL.model_copy(update={"seed": 4, "train_scenes": 0, "tune_scenes": 0})
    _write(tmp_path / "world", other)
    names = {path.name for path in (world / "samples/CAM_FRONT").iterdir()}
    assert not names & {path.name for path in (tmp_path / "world/samples/CAM_FRONT").iterdir()}


def test_a_world_is_recognised_and_not_written_again(world: Path) -> None:
    assert is_world(world, SMALL)
    assert not is_world(world, SMALL.model_copy(update={"seed": 4}))
    assert not is_world(world / "nowhere", SMALL)
    before = (world / SIGNATURE).stat().st_mtime_ns
    assert _write(world) == []
    assert (world / SIGNATURE).stat().st_mtime_ns == before


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_write_leaves_nothing(tmp_path: Path, workers: int) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_world(SMALL, tmp_path / "world", workers, interrupt)
    assert not is_world(tmp_path / "world", SMALL)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_replaced(world: Path, tmp_path: Path) -> None:
    leftover = tmp_path / "world.partial"
    (leftover / "samples/CAM_FRONT").mkdir(parents=True)
    (leftover / "samples/CAM_FRONT/half.jpg").write_bytes(b"half")
    (leftover / MARK).touch()
    assert not is_world(tmp_path / "world", SMALL)
    assert not is_world(leftover, SMALL)
    _write(tmp_path / "world")
    assert _hashes(tmp_path / "world") == _hashes(world)
    assert not leftover.exists()


def test_an_empty_folder_may_become_a_world(tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    _write(tmp_path / "world", SMALL.model_copy(update={"train_scenes": 0, "tune_scenes": 0, "frames_per_scene": 1}))
    assert (tmp_path / "world" / SIGNATURE).is_file()


def test_a_foreign_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    (tmp_path / "world/thesis.txt").write_text("precious")
    with pytest.raises(DataError, match=r"world exists and is no synthetic world \(it has no synthetic_world.json\)"):
        _write(tmp_path / "world")
    assert (tmp_path / "world/thesis.txt").read_text() == "precious"


def test_a_world_of_other_options_is_refused_with_both(world: Path) -> None:
    with pytest.raises(DataError, match=r'another synthetic world.*"seed": 4.*got.*"seed": 3.*Nothing was changed'):
        _write(world, SMALL.model_copy(update={"seed": 4}))
    assert is_world(world, SMALL)


def test_a_foreign_partial_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "world.partial").mkdir()
    (tmp_path / "world.partial/thesis.txt").write_text("precious")
    with pytest.raises(DataError, match=r"world.partial is needed for unfinished work.*Nothing was changed"):
        _write(tmp_path / "world")
    assert (tmp_path / "world.partial/thesis.txt").read_text() == "precious"


def test_a_second_run_is_refused_while_the_first_writes(tmp_path: Path) -> None:
    (tmp_path / "world.partial").mkdir()
    handle = os.open(tmp_path / "world.partial", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(DataError, match=r"another run is writing .*world"):
            _write(tmp_path / "world")
        assert (tmp_path / "world.partial").is_dir()
    finally:
        os.close(handle)
