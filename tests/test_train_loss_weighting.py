"""Matched weights: a given share of the detection loss, found at the start, then frozen, and kept across restarts."""

import json
import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from train_world import CPU, SCENES, fill_cache, tiny_detector, tiny_tables

from schemas.errors import RecipeError
from train.clips import ClipOptions
from train.distiller_catalogue import DistillationOptions, build_distillers
from train.loop import train
from train.loss_weighting import LossWeighting, WeightingOptions
from train.options import OptimizerOptions, TrainOptions
from train.run import TrainingRun

MATCHED = WeightingOptions(rule="matched", steps=3, share=0.5)


def terms(**values: float) -> dict[str, Tensor]:
    return {name.replace("__", "/"): torch.tensor(value) for name, value in values.items()}


def weighed(weighting: LossWeighting, detection: float, **values: float) -> dict[str, float]:
    found = weighting(terms(**values), torch.tensor(detection))
    return {name: value.item() for name, value in found.items()}


def test_fixed_weights_change_nothing_and_log_nothing() -> None:
    weighting = LossWeighting(WeightingOptions(), ("a",))
    assert weighed(weighting, 5.0, a__x=3.0) == {"a/x": 3.0}
    assert weighting.factors() == {}


def test_every_total_is_the_given_share_of_the_detection_loss_from_the_first_batch() -> None:
    weighting = LossWeighting(MATCHED.model_copy(update={"shares": {"b": 0.1}}), ("a", "b"))
    found = weighed(weighting, 8.0, a__x=3.0, a__y=1.0, b__z=1e5)
    assert found["a/x"] + found["a/y"] == pytest.approx(0.5 * 8.0)
    assert found["a/x"] / found["a/y"] == pytest.approx(3.0)
    assert found["b/z"] == pytest.approx(0.1 * 8.0)
    assert weighting.factors() == {"a": pytest.approx(1.0), "b": pytest.approx(8e-6)}


def test_factors_follow_running_means_and_then_stand() -> None:
    weighting = LossWeighting(MATCHED, ("a",))
    detection, total = 8.0, 2.0
    for new_detection, new_total in ((8.0, 2.0), (6.0, 1.0), (5.0, 4.0)):
        detection, total = 0.9 * detection + 0.1 * new_detection, 0.9 * total + 0.1 * new_total
        found = weighed(weighting, new_detection, a__x=new_total)
        assert found["a/x"] == pytest.approx(0.5 * detection / total * new_total)
    frozen = weighting.factors()["a"]
    assert weighed(weighting, 100.0, a__x=1.0)["a/x"] == pytest.approx(frozen)
    assert weighting.factors() == {"a": frozen}


def test_batches_in_which_a_distiller_is_silent_are_not_counted() -> None:
    weighting = LossWeighting(MATCHED, ("a", "b"))
    assert weighed(weighting, 8.0, a__x=0.0, b__x=1.0) == {"a/x": 0.0, "b/x": 4.0}
    assert weighting.factors() == {"a": 1.0, "b": 4.0}
    for _ in range(4):
        weighed(weighting, 8.0, a__x=0.0, b__x=1.0)
    assert weighed(weighting, 2.0, a__x=2.0, b__x=1.0) == {"a/x": 1.0, "b/x": 4.0}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_leaves_no_trace(value: float) -> None:
    weighting = LossWeighting(MATCHED, ("a",))
    weighed(weighting, 8.0, a__x=2.0)
    before = weighting.factors()
    weighed(weighting, 8.0, a__x=value)
    weighed(weighting, value, a__x=2.0)
    assert weighting.factors() == before


def test_factors_carry_no_gradient_and_evaluation_counts_nothing() -> None:
    weighting = LossWeighting(MATCHED, ("a",))
    value, detection = torch.tensor(2.0, requires_grad=True), torch.tensor(8.0, requires_grad=True)
    weighting({"a/x": value}, detection)["a/x"].backward()
    assert value.grad == pytest.approx(2.0)
    assert detection.grad is None
    before = weighting.factors()
    weighting.eval()
    weighed(weighting, 100.0, a__x=1.0)
    assert weighting.factors() == before


def test_no_shares_below_zero_or_for_unknown_distillers() -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        WeightingOptions(share=0)
    for shares in ({"magic": 0.5}, {"feature": -1.0}):
        options = DistillationOptions(weighting=MATCHED.model_copy(update={"shares": shares}))
        with pytest.raises(RecipeError, match=r"weighting.shares gives '(magic|feature)'.*tempdistiller.*--set"):
            build_distillers(options, None)


OPTIONS = TrainOptions(
    steps=5,
    batch_size=2,
    clips=ClipOptions(length=3),
    distillation=DistillationOptions(
        names=("tempdistiller", "pkd", "temporal-attention"),
        weighting=WeightingOptions(rule="matched", steps=4, share=0.3),
    ),
    optimizer=OptimizerOptions(lr=1e-3, warmup_steps=2),
    log_every=1,
)


def test_a_run_with_matched_distillers_resumes_bit_by_bit(tmp_path: Path) -> None:
    tables = tiny_tables(tmp_path / "world")
    cache = fill_cache(tmp_path / "cache", tables)

    def go(out: str, max_steps: int | None = None) -> list[dict[str, object]]:
        run = TrainingRun(tiny_detector(), tables, SCENES, cache, OPTIONS, tmp_path / out, CPU)
        train(run, lambda _report: None, max_steps)
        lines = [json.loads(line) for line in (tmp_path / out / "metrics.jsonl").read_text().splitlines()]
        for line in lines:
            del line["seconds"], line["pace"]
        return lines

    whole = go("whole")
    go("halves", max_steps=2)
    assert go("halves") == whole
    assert set(whole[0]["factors"]) == set(OPTIONS.distillation.names)
    assert whole[0]["factors"] != whole[2]["factors"] != whole[3]["factors"]
    assert whole[3]["factors"] == whole[4]["factors"]
    first = whole[0]["terms"]
    detection = sum(value for name, value in first.items() if name.startswith("detection/"))
    for name in OPTIONS.distillation.names:
        total = sum(value for term, value in first.items() if term.startswith(f"{name}/"))
        assert total == pytest.approx(0.3 * detection, rel=1e-4)
