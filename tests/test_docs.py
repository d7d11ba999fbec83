"""The guides are true: their Python runs as written, in the reader's order, and their links lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cache_fakes import SLOTS, SPECS, manifest_of, write_scene
from cache_no_fsync import no_fsync
from range_server import serving

from cache import open_cache
from cache.writing import open_for_writing
from schemas.bev_grid import BevGrid

__all__ = ["no_fsync"]

DOCS = Path(__file__).resolve().parent.parent / "docs"


def snippets(document: str) -> list[str]:
    text = (DOCS / document).read_text(encoding="utf-8")
    found = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert found
    return found


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A cache where the guides expect the demo's, with maps of its size, and its URL."""
    path = tmp_path / "out" / "demo" / "teacher-cache"
    bev = SPECS[0].model_copy(update={"shape": (40, 40, 8)})
    extent = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
    manifest = manifest_of((bev, SPECS[-1])).model_copy(update={"grid": BevGrid(rows=40, cols=40, extent_m=extent)})
    writer = open_for_writing(path, manifest, SLOTS)
    for slot in SLOTS[:2]:
        write_scene(writer, slot)
    monkeypatch.chdir(tmp_path)
    with serving(tmp_path / "out") as (host, _):
        yield f"{host}/demo/teacher-cache"


def ran(document: str, names: dict[str, Any]) -> dict[str, Any]:
    for snippet in snippets(document):
        exec(compile(snippet, document, "exec"), names)
    return names


def test_the_tour_of_a_cache_runs(served: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = ran("inspect.md", {"url": served})
    cache = open_cache("out/demo/teacher-cache")
    expected = cache.read(names["token"], "bev")
    for name in ("frame", "by_name", "exact", "same", "over_the_wire"):
        np.testing.assert_allclose(np.asarray(names[name]), expected, atol=1e-6, err_msg=name)
    assert names["near"].sizes == {"y": 8, "x": 8, "channel": 8}
    np.testing.assert_array_equal(names["some"], expected[[20, 20, 21, 39], [20, 21, 20, 0]])
    scene = np.stack([cache.read_step("scene-0001", step, "bev") for step in range(3)])
    np.testing.assert_allclose(names["channel_mean"], scene.mean(axis=(0, 1, 2)), rtol=1e-4)
    assert 0 < names["saturated"] < 0.1
    printed = capsys.readouterr().out
    assert "bev * bev_scale + bev_offset" in printed
    assert "8 frames of 2 of 3 scenes" in printed
    assert "int8 (1, 40, 40, 8)" in printed


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # Python 3.12
def test_use_in_your_code_runs(served: str) -> None:
    names = ran("use_in_your_code.md", {})
    cache = open_cache("out/demo/teacher-cache")
    tokens = names["tokens"]
    last = torch.from_numpy(np.stack([cache.read(token, "bev") for token in names["batches"][-1]]))
    torch.testing.assert_close(names["teacher"].current("bev"), last)
    assert names["target"].shape == (2, 40, 40, 8)
    assert len(names["dataset"]) == len(names["mine"]) == len(tokens) == 8
    torch.testing.assert_close(names["mine"][3]["teacher"]["bev"], torch.from_numpy(cache.read(tokens[3], "bev")))


def test_the_ten_lines_are_ten() -> None:
    lines = [line for line in snippets("use_in_your_code.md")[0].splitlines() if line.strip()]
    assert len(lines) <= 10


@pytest.mark.parametrize("document", ["inspect.md", "use_in_your_code.md", "format.md"])
def test_links_lead_somewhere(document: str) -> None:
    text = (DOCS / document).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert [link for link in links if not (DOCS / link).exists()] == []
