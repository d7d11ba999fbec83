"""A student and its undistilled twin: the same network, seed, clips and options, once with a teacher and once without.

Only what the two differ in can be owed to the teacher. A difference of one seed is one draw, though: two seeds of one
and the same student differ, too. ``make gains`` repeats it over seeds and gives intervals.
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.paths import student_folder, student_weights
from pipeline.recipe import Recipe
from train.distiller_catalogue import DistillationOptions

ALONE = ("none",)
TWIN_FOLDER = "undistilled"
"""Of the twin, within a folder that was chosen for the distilled student."""


@dataclass(frozen=True)
class Student:
    """One training run of the student stage.

    Attributes:
        recipe: with the distillers of this run.
        out: the run's folder.
    """

    recipe: Recipe
    out: Path

    @property
    def distilled(self) -> bool:
        """Whether a teacher takes part."""
        return self.recipe.student.training.distillation.names != ALONE

    @property
    def label(self) -> str:
        """What tells it from its twin."""
        return "+".join(self.recipe.student.training.distillation.names) if self.distilled else "undistilled"

    @property
    def name(self) -> str:
        """What tables and pictures call it."""
        return f"{self.recipe.student.name}, {self.label}"

    @property
    def weights(self) -> Path:
        """The weights that its training leaves."""
        return student_weights(self.out)


def undistilled(recipe: Recipe) -> Recipe:
    """The recipe without a teacher. All settings of distillers go, too, so that one twin serves all distillers."""
    training = recipe.student.training.model_copy(update={"distillation": DistillationOptions(names=ALONE)})
    return recipe.model_copy(update={"student": recipe.student.model_copy(update={"training": training})})


def students_of(recipe: Recipe, out: Path | None, *, twin: bool) -> tuple[Student, ...]:
    """What to train: the recipe's student, then its twin, unless it has no teacher itself or no twin is wanted.

    Args:
        recipe: with the distillers asked for.
        out: folder of the student, and of the twin within it; None gives each its default.
        twin: whether a twin is wanted.
    """
    if recipe.student.training.distillation.names == ALONE:
        alone = undistilled(recipe)
        return (Student(alone, out or student_folder(alone)),)
    student = Student(recipe, out or student_folder(recipe))
    if not twin:
        return (student,)
    other = undistilled(recipe)
    return student, Student(other, out / TWIN_FOLDER if out else student_folder(other))
