"""What the make targets run: options only from make's command line, quoted, and never from the environment."""

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def dry_run(*arguments: str, **environment: str) -> str:
    """The last command that make would run."""
    done = subprocess.run(
        ["make", "-n", "--no-print-directory", *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"MAKEFLAGS": ""} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "target",
    [
        "cache-teacher",
        "train-student",
        "evaluate",
        "plan",
        "verify-cache",
        "repair-cache",
        "view-cache",
        "make-scenes",
        "demo-teacher",
        "gains",
    ],
)
def test_a_program_is_its_command(target: str) -> None:
    assert dry_run(target).strip() == f".venv/bin/python -m pipeline {target}"


def test_variables_become_options() -> None:
    command = dry_run("cache-teacher", "RECIPE=bevformer-base", "DATA=/data/nu scenes", "ARGS=--untrained --scenes a,b")
    assert command == (
        ".venv/bin/python -m pipeline cache-teacher --recipe 'bevformer-base' --data '/data/nu scenes' "
        "--untrained --scenes a,b"
    )


def test_a_quote_in_a_path_is_no_way_out() -> None:
    assert dry_run("evaluate", "OUT=it's; true").endswith(r"--out 'it'\''s; true'")


def test_the_environment_is_not_read() -> None:
    assert dry_run("train-student", RECIPE="bevformer-base", ARGS="--untrained").endswith("train-student")


@pytest.mark.parametrize("name", ["DISTILLER", "RECIPIE"])
def test_an_unknown_variable_is_refused_rather_than_lost(name: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        dry_run("train-student", f"{name}=fd3d")
    assert f"there is no variable {name}. Expected: RECIPE DATA" in refused.value.stderr
