"""Commands that make data and train or score networks."""

from typing import Annotated, Literal

import typer

from pipeline import options
from pipeline.failures import told_clearly


def make_scenes(
    recipe: options.RecipeOption = "demo", assignments: options.SetOption = None, out: options.OutOption = None
) -> None:
    """Write the synthetic driving world in genuine nuScenes v1.0 form."""
    with told_clearly("Nothing half-written is left; run the same command again."):
        from pipeline.make_scenes import make_scenes
        from pipeline.paths import WORLD_FOLDER
        from pipeline.recipes import load_recipe
        from schemas.errors import RecipeError

        world = load_recipe(recipe, assignments).world
        if world is None:
            raise RecipeError(f"Recipe {recipe!r} describes no synthetic world; use --recipe demo.")
        make_scenes(world, out or WORLD_FOLDER)


def demo_teacher(
    recipe: options.RecipeOption = "demo",
    assignments: options.SetOption = None,
    data: options.DataOption = None,
    version: options.VersionOption = None,
    split: options.SplitOption = None,
    scenes: options.ScenesOption = None,
    out: options.OutOption = None,
    device: options.DeviceOption = "cpu",
    max_steps: options.MaxStepsOption = None,
    seed: options.SeedOption = None,
    ship: Annotated[
        bool, typer.Option("--ship", help="When trained, score it and keep the weights with the program.")
    ] = False,
) -> None:
    """Train the demo's teacher from ground truth on the synthetic world; resumable."""
    with told_clearly("The last checkpoint is kept; run the same command to go on from it."):
        from pipeline.dataset import DataChoice
        from pipeline.demo_teacher import ship_demo_teacher, train_demo_teacher
        from pipeline.paths import teacher_folder
        from pipeline.processes import open_processes
        from pipeline.recipes import load_recipe, with_training

        chosen = with_training(load_recipe(recipe, assignments), "teacher", seed)
        choice = DataChoice(data, version, split, options.comma_separated("--scenes", scenes))
        folder = out or teacher_folder(chosen)
        with open_processes(device) as (processes, where):
            train_demo_teacher(chosen, choice, folder, where, max_steps, processes)
            if ship:
                processes.first_alone(lambda: ship_demo_teacher(chosen, folder, where))


def train_student(
    recipe: options.RecipeOption = "demo",
    assignments: options.SetOption = None,
    data: options.DataOption = None,
    version: options.VersionOption = None,
    split: options.SplitOption = None,
    scenes: options.ScenesOption = None,
    cache: options.CacheOption = None,
    out: options.OutOption = None,
    device: options.DeviceOption = "cpu",
    student: options.StudentOption = None,
    init: options.InitOption = None,
    init_backbone: options.InitBackboneOption = None,
    distiller: options.DistillerOption = None,
    max_steps: options.MaxStepsOption = None,
    seed: options.SeedOption = None,
    allow_untrained_teacher: options.AllowUntrainedOption = False,
    twin: options.TwinOption = True,
    pictures: options.PicturesOption = 4,
) -> None:
    """Train a student from the cache, and its twin without a teacher; score both and compare them; resumable."""
    with told_clearly("The last checkpoint is kept; run the same command to go on from it."):
        from pipeline.dataset import DataChoice
        from pipeline.missing_cache import make_missing_cache
        from pipeline.paths import cache_folder
        from pipeline.processes import open_processes
        from pipeline.recipes import load_recipe, with_distillers, with_training
        from pipeline.students import with_init
        from pipeline.train_student import StudentJob, train_student

        chosen = with_init(load_recipe(recipe, assignments, student), init, init_backbone)
        chosen = with_distillers(chosen, options.comma_separated("--distiller", distiller))
        chosen = with_training(chosen, "student", seed)
        choice = DataChoice(data, version, split, options.comma_separated("--scenes", scenes))
        sets = [part for assignment in assignments or [] for part in ("--set", assignment)]
        asked = ["--recipe", recipe, "--device", device, *sets]
        with open_processes(device) as (processes, where):
            if cache is None and data is None:
                processes.first_alone(lambda: make_missing_cache(chosen, asked, choice.scenes))
            job = StudentJob(
                recipe=chosen,
                choice=choice,
                cache_path=cache or cache_folder(chosen),
                out=out,
                device=where,
                allow_untrained_teacher=allow_untrained_teacher,
                max_steps=max_steps,
                processes=processes,
                twin=twin,
                pictures=pictures,
            )
            train_student(job)


def evaluate(
    recipe: options.RecipeOption = "demo",
    assignments: options.SetOption = None,
    data: options.DataOption = None,
    version: options.VersionOption = None,
    split: options.ScoredSplitOption = None,
    student: options.StudentOption = None,
    checkpoint: options.CheckpointOption = None,
    out: options.OutOption = None,
    device: options.DeviceOption = "cpu",
    model: Annotated[
        Literal["student", "teacher"], typer.Option("--model", help="Which of the recipe's detectors to score.")
    ] = "student",
    pictures: options.PicturesOption = 4,
    history: Annotated[
        bool, typer.Option("--history/--no-history", help="Tell each frame of those before it, or of none.")
    ] = True,
) -> None:
    """Score a detector with the official nuScenes evaluation, and show what it sees in plots and pictures."""
    with told_clearly("Nothing was scored; run the same command again."):
        from pipeline.dataset import DataChoice
        from pipeline.device import open_device
        from pipeline.evaluate import EvaluationJob, evaluate_checkpoint
        from pipeline.recipes import load_recipe

        chosen = load_recipe(recipe, assignments, student)
        choice = DataChoice(data, version, split)
        where = open_device(device)
        evaluate_checkpoint(EvaluationJob(chosen, model, checkpoint, choice, out, where, pictures, history))
