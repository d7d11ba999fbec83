"""A recipe: one frozen, validated value that says all a run depends on. The shipped ones are in ``recipes.py``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from detectors.catalogue import DETECTORS
from detectors.config import BEVFormerConfig
from scenes.synthetic.options import WorldOptions
from scenes.whole_file import whole_file
from schemas.errors import RecipeError
from schemas.features import TIERS, Tier
from schemas.temporal_fusion import TemporalFusion
from train.options import TrainOptions

RECIPE_FILE = "recipe.yaml"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _from_catalogue(detector: object) -> object:
    """A detector may be named instead of spelled out; its configuration is what the recipe then holds."""
    if not isinstance(detector, str):
        return detector
    if detector not in DETECTORS:
        raise ValueError(f"no detector {detector!r} in the catalogue; it has {', '.join(DETECTORS)}")
    return DETECTORS[detector]()


Detector = Annotated[BEVFormerConfig, BeforeValidator(_from_catalogue)]


class TeacherRecipe(_Frozen):
    """The network that fills the cache.

    Attributes:
        name: what the manifest calls it.
        detector: its architecture and preprocessing, or its name in ``detectors/catalogue.py``.
        precision: of the forward pass; geometry is float32 in any case.
        training: how ``make demo-teacher`` trains it from ground truth; None where published weights exist.
        file: ``FILE.py:function`` of a teacher of one's own, which then takes the detector's place.
    """

    name: str
    detector: Detector
    file: str | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    training: TrainOptions | None = None


class CacheRecipe(_Frozen):
    """What is stored of the teacher.

    Attributes:
        features: names of the teacher's features to keep; all it has when empty.
        tier: precision and compression of the store.
        bev_grid: rows and columns that features of BEV cells are averaged to; None keeps the teacher's cells.
        max_objects: rows of ``object_features``, where that is among the features.
        temporal_target: how ``temporal_target`` is fused, where that is among the features.
    """

    features: tuple[str, ...] = ()
    tier: Tier = "int8"
    bev_grid: int | None = Field(default=None, ge=1)
    max_objects: int = Field(default=128, ge=1)
    temporal_target: TemporalFusion = TemporalFusion()

    @model_validator(mode="after")
    def _check(self) -> "CacheRecipe":
        if len(set(self.features)) != len(self.features):
            raise ValueError(f"features are named twice: {self.features}")
        return self


class StudentRecipe(_Frozen):
    """The network that learns from the cache.

    Attributes:
        name: what tables call it.
        detector: its architecture and preprocessing, or its name in ``detectors/catalogue.py``.
        training: the loop's options, the distillers among them.
        variant: names its run's folder where another student has taken the place of the recipe's own (``--student``).
    """

    name: str
    detector: Detector
    training: TrainOptions
    variant: str = Field(default="", pattern=r"^[A-Za-z0-9._-]*$")


class Recipe(_Frozen):
    """Teacher, cache and student of one experiment.

    Attributes:
        name: names the output folder, ``out/<name>``.
        version: nuScenes version of the data, e.g. ``v1.0-trainval``.
        world: the synthetic world to write and use when no data directory is given; None: a data directory is needed.
        teacher, cache, student: the three parts.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: str = "v1.0-trainval"
    world: WorldOptions | None = None
    teacher: TeacherRecipe
    cache: CacheRecipe
    student: StudentRecipe


def override(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """A recipe with some values replaced.

    Args:
        recipe: the recipe to start from.
        assignments: ``dotted.key=value`` each; the value is read as YAML.

    Raises:
        RecipeError: no such key, or a value the recipe refuses.
    """
    values = recipe.model_dump(mode="json")
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise RecipeError(f"--set {assignment!r}: expected dotted.key=value, for example --set cache.tier=float16.")
        *parents, last = key.split(".")
        node: Any = values
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last not in node:
            keys = sorted(node) if isinstance(node, dict) else sorted(values)
            raise RecipeError(f"--set {assignment!r}: the recipe has no {key!r}. Here it knows {', '.join(keys)}.")
        node[last] = _parse_yaml(text, f"--set {assignment!r}")
    return _validated(values, f"--set {' --set '.join(assignments)}")


def read_recipe(path: Path) -> Recipe:
    """Read a recipe that was written beside some output.

    Raises:
        RecipeError: the file is absent, is not YAML, or is not a recipe.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"Cannot read the recipe {path}: {error}.") from error
    return _validated(_parse_yaml(text, str(path)), str(path))


def as_yaml(recipe: Recipe) -> str:
    """The recipe as the text of a file that can be given back as ``--recipe``."""
    text: str = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
    return text


def write_recipe(recipe: Recipe, folder: Path) -> None:
    """Write the recipe as ``folder/recipe.yaml``, atomically."""
    with whole_file(folder / RECIPE_FILE) as file:
        file.write(as_yaml(recipe).encode())


def check_tier(tier: str) -> Tier:
    """The tier of that name.

    Raises:
        RecipeError: there is none.
    """
    for known in TIERS:
        if tier == known:
            return known
    raise RecipeError(f"Unknown tier {tier!r}: expected one of {', '.join(TIERS)}.")


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: not readable as YAML: {error}") from error


def _validated(values: Any, where: str) -> Recipe:
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'recipe'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise RecipeError(f"{where}: not a valid recipe. {problems}.") from error
