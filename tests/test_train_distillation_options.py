"""Which settings of distillers a run depends on."""

from train.distiller_catalogue import DistillationOptions
from train.distillers.feature import FeatureOptions
from train.distillers.pkd import PKDOptions
from train.loss_weighting import WeightingOptions
from train.options import TrainOptions


def numbers(**distillation: object) -> dict[str, object]:
    return TrainOptions(steps=1, distillation=DistillationOptions(**distillation)).what_changes_numbers()


def test_settings_of_distillers_that_take_no_part_may_change() -> None:
    other = {"pkd": PKDOptions(adapter="always")}
    assert numbers(names=("feature",), **other) == numbers(names=("feature",))
    assert numbers(names=("pkd",), **other) != numbers(names=("pkd",))
    assert numbers(names=("feature", "pkd"), **other) != numbers(names=("feature", "pkd"))
    assert numbers(names=("feature",), feature=FeatureOptions(weight=2)) != numbers(names=("feature",))


def test_without_a_teacher_no_setting_of_distillers_counts() -> None:
    shared = {"weighting": WeightingOptions(rule="matched"), "feature": FeatureOptions(weight=2)}
    assert numbers(**shared) == numbers()
    assert numbers(names=("feature",), **shared) != numbers()
