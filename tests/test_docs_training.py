"""The guide to the training loop names every option, every file of a run and every number that is logged."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from train.metrics_log import StepReport
from train.options import TrainOptions
from train.run_folder import RunFolder

DOCS = Path(__file__).resolve().parent.parent / "docs"
TEXT = (DOCS / "training.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("option", TrainOptions.model_fields)
def test_every_option_is_in_the_table(option: str) -> None:
    assert re.search(rf"^\|[^|]*`{option}(\.\w+|\.\*)?`", TEXT, flags=re.MULTILINE)


def test_every_file_of_a_run_is_listed() -> None:
    folder = RunFolder(Path("run"))
    names = [path.name for path in vars(folder).values() if isinstance(path, Path) and path != folder.path]
    assert len(names) > 8
    assert [name for name in names if not re.search(rf"^\|[^|]*`{re.escape(name)}/?`", TEXT, re.MULTILINE)] == []


def test_the_line_shown_has_the_fields_of_a_report() -> None:
    (line,) = re.findall(r"```json\n(.*?)```", TEXT, flags=re.DOTALL)
    shown = json.loads(line)
    assert shown.keys() == {field.name for field in fields(StepReport)} - {"loss_scale"} | {"pace"}
    assert shown["loss"] == pytest.approx(sum(shown["terms"].values()), abs=0.03)


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in link]
    assert links
    assert [link for link in links if not (DOCS / link).exists()] == []
