"""The shipped recipes. Each is a function that returns one value, and its docstring is its lab note."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from detectors.catalogue import bevformer_base, bevformer_small, bevformer_tiny, demo_student, demo_teacher
from detectors.config import BEVFormerConfig
from pipeline.recipe import (
    CacheRecipe,
    Recipe,
    StudentRecipe,
    TeacherRecipe,
    check_tier,
    override,
    read_recipe,
)
from pipeline.students import PUBLISHED_CLIPS, with_student
from scenes.photometric import PhotometricOptions
from scenes.synthetic.options import WorldOptions
from schemas.errors import RecipeError
from train.augmentation import AugmentationOptions
from train.clips import ClipOptions
from train.distiller_catalogue import DistillationOptions, needs_cache
from train.distillers.unidistill import UniDistillOptions
from train.inheritance import PARTS
from train.initialisation import InitOptions
from train.loss_weighting import WeightingOptions
from train.options import OptimizerOptions, TrainOptions

ALL_FEATURES = (
    "bev",
    "temporal_offsets",
    "temporal_weights",
    "query_features",
    "query_positions",
    "query_logits",
    "query_boxes",
)

TRAINING_FRAMES = 28_130
"""Keyframes of nuScenes' training split."""


def demo() -> Recipe:
    """The embedded default: a small world, a small BEVFormer, minutes on two CPU cores.

    The teacher sees 128×224 images and every earlier frame of the scene; it comes trained, NDS 0.395, mAP 0.404 on val.
    The student sees half of that resolution, and starts from weights that never saw a teacher (``demo-start``) with the
    teacher's head and history fusion. Its three distillers are the study's ``best`` (docs/results.md,
    results/demo/tuning.csv).
    Command: ``make cache-teacher && make train-student``. Times and scores: README.
    """
    return Recipe(
        name="demo",
        world=WorldOptions(train_scenes=160, tune_scenes=20, val_scenes=20, frames_per_scene=20),
        teacher=TeacherRecipe(
            name="demo-teacher",
            detector=demo_teacher(),
            training=TrainOptions(
                steps=10_000,
                batch_size=4,
                clips=ClipOptions(mode="stream"),
                history_from_step=2000,
                precision="bfloat16",
                optimizer=OptimizerOptions(lr=2e-3, backbone_lr_factor=1.0, warmup_steps=50, warmup_from=0.01),
                checkpoint_every=500,
            ),
        ),
        cache=CacheRecipe(features=ALL_FEATURES),
        student=StudentRecipe(
            name="demo-student",
            detector=demo_student(),
            training=TrainOptions(
                steps=600,
                batch_size=4,
                clips=ClipOptions(mode="stream"),
                precision="bfloat16",
                init=InitOptions(weights="shipped:demo-start"),
                distillation=DistillationOptions(
                    names=("fd3d", "pkd", "unidistill"),
                    weighting=WeightingOptions(rule="matched", share=1.0, shares={"pkd": 2.0}),
                    inherit=tuple(PARTS),
                    unidistill=UniDistillOptions(classes="each"),
                ),
                optimizer=OptimizerOptions(lr=2e-3, backbone_lr_factor=1.0, warmup_steps=50, warmup_from=0.01),
                checkpoint_every=100,
            ),
        ),
    )


def demo_start() -> Recipe:
    """What the demo's students start from: the student itself, trained from annotations alone, before any teacher.

    It spares every run of a study the same first minutes. After 2,000 steps: NDS 0.181, mAP 0.156 on val.
    Command: ``make demo-teacher RECIPE=demo-start ARGS=--ship``.
    """
    recipe = demo()
    training = recipe.student.training
    alone = training.model_copy(
        update={
            "steps": 2000,
            "history_from_step": 700,
            "distillation": DistillationOptions(),
            "init": InitOptions(),
            "optimizer": training.optimizer.model_copy(update={"lr": 3e-3}),
            "checkpoint_every": 500,
        }
    )
    start = TeacherRecipe(name="demo-start", detector=demo_student(), training=alone)
    return recipe.model_copy(update={"name": "demo-start", "teacher": start})


def bevformer_base_recipe() -> Recipe:
    """BEVFormer-Base teaches BEVFormer-Tiny, or with ``--student`` any other of ``detectors/catalogue.py``.

    Published scores: Base 51.7 NDS, 41.6 mAP; Tiny alone 35.4 NDS, 25.2 mAP (Li et al., arXiv:2203.17270). Tiny alone
    starts from torchvision's ResNet-50, bevformer-small and fd3d-small from ``r101_dcn_fcos3d_pretrain.pth``.
    Command: ``make cache-teacher RECIPE=bevformer-base DATA=... CHECKPOINT=bevformer_r101_dcn_24ep.pth``, then
    ``make train-student RECIPE=bevformer-base DATA=... ARGS="--init-backbone resnet50-0676ba61.pth"``, or
    ``ARGS="--student fd3d-small --init-backbone r101_dcn_fcos3d_pretrain.pth"``. Not yet run on the whole of nuScenes
    by us.
    """
    return _published("bevformer-base", bevformer_base())


def bevformer_small_recipe() -> Recipe:
    """BEVFormer-Small teaches BEVFormer-Tiny.

    Published scores: Small 47.9 NDS, 37.0 mAP; Tiny alone 35.4 NDS, 25.2 mAP.
    Command: as ``bevformer-base`` with ``CHECKPOINT=bevformer_small_epoch_24.pth``. Not yet run on the whole of
    nuScenes by us.
    """
    return _published("bevformer-small", bevformer_small())


def bevformer_tiny_recipe() -> Recipe:
    """BEVFormer-Tiny teaches a BEVFormer-Tiny: self-distillation, and the cheapest run of the whole flow.

    Published score: 35.4 NDS, 25.2 mAP.
    Command: as ``bevformer-base`` with ``CHECKPOINT=bevformer_tiny_epoch_24.pth``. Not yet run on the whole of
    nuScenes by us.
    """
    return _published("bevformer-tiny", bevformer_tiny())


RECIPES: dict[str, Callable[[], Recipe]] = {
    "demo": demo,
    "demo-start": demo_start,
    "bevformer-tiny": bevformer_tiny_recipe,
    "bevformer-small": bevformer_small_recipe,
    "bevformer-base": bevformer_base_recipe,
}


def load_recipe(name: str, assignments: Sequence[str] | None = None, student: str | None = None) -> Recipe:
    """A shipped recipe, or one read from a file, with some values replaced.

    Args:
        name: a key of ``RECIPES``, or the path of a ``.yaml`` file.
        assignments: ``dotted.key=value`` each.
        student: another student's name in the catalogue of detectors; assignments are made to that one.

    Raises:
        RecipeError: no such recipe, or values that it refuses.
    """
    if name in RECIPES:
        recipe = RECIPES[name]()
    elif name.endswith((".yaml", ".yml")):
        recipe = read_recipe(Path(name))
    else:
        raise RecipeError(f"Unknown recipe {name!r}: expected one of {', '.join(RECIPES)}, or a recipe.yaml.")
    recipe = with_student(recipe, student)
    return override(recipe, assignments) if assignments else recipe


def with_training(recipe: Recipe, part: Literal["teacher", "student"], seed: int | None) -> Recipe:
    """The recipe with another seed for one of its trainings.

    Raises:
        RecipeError: the recipe does not train that part.
    """
    training = recipe.teacher.training if part == "teacher" else recipe.student.training
    if training is None:
        raise RecipeError(
            f"Recipe {recipe.name!r} does not train its teacher; it takes published weights: CHECKPOINT=/path/to/file."
        )
    if seed is None:
        return recipe
    changed = training.model_copy(update={"seed": seed})
    if part == "teacher":
        return recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"training": changed})})
    return recipe.model_copy(update={"student": recipe.student.model_copy(update={"training": changed})})


def with_distillers(recipe: Recipe, names: tuple[str, ...]) -> Recipe:
    """The recipe with other distillers, unless ``names`` is empty. Without a teacher nothing is inherited either.

    Raises:
        RecipeError: an unknown distiller.
    """
    if not names:
        return recipe
    training = recipe.student.training
    update: dict[str, object] = {"names": names} if needs_cache(names) else {"names": names, "inherit": ()}
    changed = training.model_copy(update={"distillation": training.distillation.model_copy(update=update)})
    return recipe.model_copy(update={"student": recipe.student.model_copy(update={"training": changed})})


def with_cache(recipe: Recipe, features: tuple[str, ...], tier: str | None, bev_grid: int | None) -> Recipe:
    """The recipe with other cached features, another tier or another grid of cells, where given.

    Raises:
        RecipeError: an unknown tier.
    """
    changed = CacheRecipe(
        features=features or recipe.cache.features,
        tier=recipe.cache.tier if tier is None else check_tier(tier),
        bev_grid=recipe.cache.bev_grid if bev_grid is None else bev_grid,
        max_objects=recipe.cache.max_objects,
        temporal_target=recipe.cache.temporal_target,
    )
    return recipe.model_copy(update={"cache": changed})


def with_teacher_file(recipe: Recipe, file: str | None) -> Recipe:
    """The recipe with a teacher of the user's own in place of the detector, where given; all its features are kept."""
    if file is None:
        return recipe
    return recipe.model_copy(
        update={
            "teacher": recipe.teacher.model_copy(update={"file": file}),
            "cache": recipe.cache.model_copy(update={"features": ()}),
        }
    )


def _published(name: str, teacher: BEVFormerConfig) -> Recipe:
    """A published teacher with BEVFormer-Tiny as its student, trained as published for 24 epochs.

    Images are distorted as published; GridMask is the detector's own, and on.
    """
    return Recipe(
        name=name,
        teacher=TeacherRecipe(name=name, detector=teacher),
        cache=CacheRecipe(features=ALL_FEATURES),
        student=StudentRecipe(
            name="bevformer-tiny",
            detector=bevformer_tiny(),
            training=TrainOptions(
                steps=24 * TRAINING_FRAMES,
                clips=ClipOptions(length=PUBLISHED_CLIPS["bevformer-tiny"]),
                augmentation=AugmentationOptions(photometric=PhotometricOptions()),
                distillation=DistillationOptions(names=("fd3d-heatmap",)),
                optimizer=OptimizerOptions(cosine="per-epoch"),
            ),
        ),
    )
