"""Where the programs keep things: everything under ``out/``, one folder a recipe."""

from pathlib import Path

from pipeline.recipe import Recipe

OUT = Path("out")
WORLD_FOLDER = OUT / "scenes"
INDEX_FOLDER = OUT / "index"


def cache_folder(recipe: Recipe) -> Path:
    """The default place of the recipe's teacher cache."""
    return OUT / recipe.name / "teacher-cache"


def teacher_folder(recipe: Recipe) -> Path:
    """The default place of a teacher that the recipe trains itself."""
    return OUT / recipe.name / "teacher"


def student_folder(recipe: Recipe) -> Path:
    """The default place of a student run; other students, distillers or seeds get folders of their own."""
    training, variant = recipe.student.training, recipe.student.variant
    who = f"student-{variant}" if variant else "student"
    return OUT / recipe.name / f"{who}-{'+'.join(training.distillation.names)}-seed{training.seed}"


def teacher_weights(folder: Path) -> Path:
    """The weights of a teacher whose training is complete; a run that stopped early has no such file."""
    return folder / "teacher.safetensors"


def student_weights(folder: Path) -> Path:
    """The weights that a student's run left last."""
    return folder / "weights.safetensors"
