"""However scenes are spread over processes, the same bytes come out."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_runs import SMALL_TEACHER, cached_on_dask, cached_serially, choice_of, files_of, scenes_in

from pipeline.teacher_stage.engine import Part, engine_choice, parse_part
from schemas.errors import RecipeError

REPOSITORY = Path(__file__).resolve().parent.parent
NOT_COMPARED = ("fidelity.json", "recipe.yaml", "teacher.safetensors")
"""What the program adds to what the engines write."""


@given(names=st.lists(st.text(), unique=True, max_size=50), count=st.integers(1, 60))
def test_parts_are_disjoint_and_complete(names: list[str], count: int) -> None:
    parts = [Part(index, count).of(names) for index in range(count)]
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all([name for name in names if name in part] == list(part) for part in parts)


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "0/0", "a/b", "1/2/3", "0 / 2"])
def test_a_part_that_is_none(text: str) -> None:
    with pytest.raises(RecipeError, match="expected i/n with i from 0 to n-1"):
        parse_part(text)


@pytest.mark.parametrize("text", ["foo", "tcp://", "tcp://host", "tcp://host:", "host:port", "http s://a:1"])
def test_an_address_that_is_none(text: str) -> None:
    with pytest.raises(
        RecipeError, match=r"expected the address that `dask scheduler` prints .* tcp://10\.0\.0\.1:8786"
    ):
        engine_choice("serial", text, None, None)


@pytest.mark.parametrize("text", ["tcp://10.0.0.1:8786", "tls://host:1", "host:8786", "tcp://[::1]:8786", "tcp://a:1/"])
def test_an_address_asks_for_dask(text: str) -> None:
    assert engine_choice("serial", text, None, None).name == "dask"


def begun_part(data: Path, cache: Path, part: str) -> "subprocess.Popen[str]":
    sets = [word for assignment in SMALL_TEACHER for word in ("--set", assignment)]
    words: Sequence[str] = ("--data", str(data), "--cache", str(cache), "--untrained", "--threads", "1", "--part", part)
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "cache-teacher", *sets, *words],
        cwd=cache.parent,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_serial_dask_and_parts_write_the_same_bytes(tiny_world: Path, tmp_path: Path) -> None:
    serial, dask, parts = (tmp_path / name for name in ("serial", "dask", "parts"))
    choice = choice_of(tiny_world, serial)
    cached_serially(choice)
    names = scenes_in(serial)
    assert len(names) == 2
    programs = [begun_part(tiny_world, parts, part) for part in ("0/2", "1/2")]
    heard = cached_on_dask(choice_of(tiny_world, dask), names)
    assert heard.frames == dict.fromkeys(names, 4)
    assert [fidelity.frames for fidelity in heard.fidelity] == [4]
    for program in programs:
        printed, _ = program.communicate()
        assert program.returncode == 0, printed
        assert "Caching 1 of 1 scenes" in " ".join(printed.split())
    expected = files_of(serial)
    assert any(name.startswith("bev/c.1.") for name in expected)
    assert files_of(dask) == expected
    assert {name: data for name, data in files_of(parts).items() if name not in NOT_COMPARED} == expected
