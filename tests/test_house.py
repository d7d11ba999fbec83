"""The house itself: imports resolve to this checkout, and every dependency can really be imported together."""

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
IMPORT_NAMES = {
    "google-crc32c": "google_crc32c",
    "nuscenes-devkit": "nuscenes",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "typing-extensions": "typing_extensions",
}


@pytest.mark.parametrize("name", PROJECT["tool"]["setuptools"]["packages"])
def test_a_package_name_resolves_to_this_checkout(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__file__ is not None
    assert Path(module.__file__).resolve() == REPOSITORY.joinpath(*name.split("."), "__init__.py")


def test_every_package_folder_is_listed_for_setuptools() -> None:
    top_level = {name.split(".")[0] for name in PROJECT["tool"]["setuptools"]["packages"]}
    on_disk = {
        ".".join(path.parent.relative_to(REPOSITORY).parts)
        for top in top_level
        for path in (REPOSITORY / top).rglob("__init__.py")
    }
    assert on_disk == set(PROJECT["tool"]["setuptools"]["packages"])


def test_every_dependency_imports_in_one_process() -> None:
    names = [re.split(r"[\[<>=]", requirement)[0] for requirement in PROJECT["project"]["dependencies"]]
    statements = "; ".join(f"import {IMPORT_NAMES.get(name, name)}" for name in names)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", statements], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
