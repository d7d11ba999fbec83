"""A file written whole: there with its content and the usual permissions, or not there."""

import os
from pathlib import Path
from typing import BinaryIO

import pytest
from torch import nn

from detectors.weights import save_weights
from scenes.whole_file import whole_file


def test_it_appears_when_the_block_ends_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "score.json"
    for content in (b"first", b"second"):
        with whole_file(path) as file:
            file.write(content)
            assert not path.exists() or path.read_bytes() == b"first"
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "score.json"
    path.write_bytes(b"first")

    def interrupted(file: BinaryIO) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), whole_file(path) as file:
        interrupted(file)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_colleagues_may_read_what_we_write(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with whole_file(tmp_path / "index.npz") as file:
            file.write(b"arrays")
        save_weights(nn.Linear(2, 2), tmp_path / "weights.safetensors")
    finally:
        os.umask(before)
    assert {oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()} == {"0o644"}
