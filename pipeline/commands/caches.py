"""Commands that make, check and show a teacher cache."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline import options
from pipeline.failures import told_clearly


def cache_teacher(
    recipe: options.RecipeOption = "demo",
    assignments: options.SetOption = None,
    data: options.DataOption = None,
    version: options.VersionOption = None,
    split: options.SplitOption = None,
    scenes: options.ScenesOption = None,
    checkpoint: options.CheckpointOption = None,
    allow_partial: options.AllowPartialOption = False,
    untrained: options.UntrainedOption = False,
    teacher: options.TeacherFileOption = None,
    arrays: options.ArraysOption = None,
    tier: options.TierOption = None,
    bev_grid: options.BevGridOption = None,
    cache: options.CacheOption = None,
    device: options.DeviceOption = "cpu",
    engine: options.EngineOption = "serial",
    scheduler: options.SchedulerOption = None,
    workers: options.WorkersOption = None,
    threads: options.ThreadsOption = None,
    part: options.PartOption = None,
) -> None:
    """Run the teacher once over every scene and write the cache; finished scenes are kept, so it resumes."""
    with told_clearly("Finished scenes are kept; run the same command to go on."):
        from pipeline.cache_teacher import cache_teacher
        from pipeline.dataset import DataChoice
        from pipeline.demo_teacher import teacher_checkpoint
        from pipeline.device import open_device
        from pipeline.paths import cache_folder
        from pipeline.recipes import load_recipe, with_cache, with_teacher_file
        from pipeline.teacher_stage.engine import engine_choice
        from pipeline.teacher_stage.job import StageChoice, StageOptions
        from pipeline.teacher_stage.teacher import WeightsSource

        spread = engine_choice(engine, scheduler, workers, part)
        chosen = with_teacher_file(load_recipe(recipe, assignments), teacher)
        chosen = with_cache(chosen, options.comma_separated("--arrays", arrays), tier, bev_grid)
        choice = DataChoice(data, version, split, options.comma_separated("--scenes", scenes))
        if checkpoint is None and not untrained and chosen.teacher.file is None:
            checkpoint = teacher_checkpoint(chosen, choice, open_device(device))
        stage = StageChoice(
            recipe=chosen,
            weights=WeightsSource(checkpoint, allow_partial=allow_partial, untrained=untrained),
            data=choice,
            cache_path=cache or cache_folder(chosen),
            device=device,
            options=StageOptions(threads=threads),
        )
        failed = cache_teacher(stage, spread)
    raise typer.Exit(1 if failed else 0)


def plan(
    recipe: options.RecipeOption = "demo",
    assignments: options.SetOption = None,
    data: options.DataOption = None,
    version: options.VersionOption = None,
    split: options.SplitOption = None,
    scenes: options.ScenesOption = None,
    teacher: options.TeacherFileOption = None,
    checkpoint: options.CheckpointOption = None,
    arrays: options.ArraysOption = None,
    tier: options.TierOption = None,
    bev_grid: options.BevGridOption = None,
    cache: options.CacheOption = None,
    device: options.DeviceOption = "cpu",
    threads: options.ThreadsOption = None,
    timed_frames: Annotated[
        int, typer.Option("--time-frames", min=0, help="Frames to time the teacher on; 0 to leave that out.")
    ] = 2,
    frames: Annotated[
        int | None, typer.Option("--frames", min=1, help="Plan for so many frames, whatever the data say.")
    ] = None,
    workers: options.WorkersOption = None,
) -> None:
    """Tell what a cache will cost before it is made: bytes, files, free disk, hours. Writes nothing."""
    with told_clearly("Nothing was written."):
        from pipeline.dataset import DataChoice
        from pipeline.paths import cache_folder
        from pipeline.plan import PlanOptions, plan
        from pipeline.recipes import load_recipe, with_cache, with_teacher_file
        from pipeline.teacher_stage.job import StageChoice, StageOptions
        from pipeline.teacher_stage.teacher import WeightsSource

        chosen = with_teacher_file(load_recipe(recipe, assignments), teacher)
        chosen = with_cache(chosen, options.comma_separated("--arrays", arrays), tier, bev_grid)
        stage = StageChoice(
            recipe=chosen,
            weights=WeightsSource(checkpoint, untrained=checkpoint is None),
            data=DataChoice(data, version, split, options.comma_separated("--scenes", scenes)),
            cache_path=cache or cache_folder(chosen),
            device=device,
            options=StageOptions(threads=threads),
        )
        plan(stage, PlanOptions(timed_frames=timed_frames, frames=frames, workers=workers or 1))


def verify_cache(
    recipe: options.RecipeOption = "demo",
    assignments: options.SetOption = None,
    data: options.DataOption = None,
    checkpoint: options.CheckpointOption = None,
    allow_partial: options.AllowPartialOption = False,
    untrained: options.UntrainedOption = False,
    cache: options.CacheOption = None,
    device: options.DeviceOption = "cpu",
    threads: options.ThreadsOption = None,
    live: Annotated[
        int | None,
        typer.Option("--live", min=1, help="Also run the teacher on N cached frames and compare.", metavar="N"),
    ] = None,
) -> None:
    """Check every promise of a cache: each file, each frame; damage is named by scene, array and step."""
    with told_clearly("Nothing was changed."):
        from pipeline.verify_cache import verify_cache

        path = cache or _cache_of(recipe, assignments)
        damages = verify_cache(path)
        if live is not None and damages == 0:
            from pipeline.live_fidelity import stage_of_cache, verify_live
            from pipeline.teacher_stage.job import StageOptions
            from pipeline.teacher_stage.teacher import WeightsSource

            weights = WeightsSource(checkpoint, allow_partial=allow_partial, untrained=untrained)
            verify_live(stage_of_cache(path, weights, data, device, StageOptions(threads=threads)), live)
    raise typer.Exit(1 if damages else 0)


def repair_cache(
    recipe: options.RecipeOption = "demo",
    assignments: options.SetOption = None,
    cache: options.CacheOption = None,
) -> None:
    """Drop exactly the damaged scenes of a cache, so that cache-teacher makes them again."""
    with told_clearly("What is damaged and not dropped yet stays damaged; run the same command again."):
        from pipeline.repair_cache import repair_cache

        repair_cache(cache or _cache_of(recipe, assignments))


def view_cache(
    recipe: options.RecipeOption = "demo",
    assignments: options.SetOption = None,
    data: options.DataOption = None,
    version: options.VersionOption = None,
    scenes: options.ScenesOption = None,
    cache: options.CacheOption = None,
    out: options.OutOption = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="Another cache to compare with.", metavar="DIR")
    ] = None,
    min_score: Annotated[
        float, typer.Option("--min-score", min=0.0, max=1.0, help="Leave out the teacher's boxes below this score.")
    ] = 0.3,
    cells: Annotated[
        str | None,
        typer.Option("--cells", help="BEV cells whose temporal attention is drawn.", metavar="ROW,COL[;ROW,COL]"),
    ] = None,
) -> None:
    """Print what a cache holds, and draw it: cameras and BEV with boxes, attention, queries, whole scenes."""
    with told_clearly("Pictures drawn so far are kept."):
        from pipeline.dataset import DataChoice
        from pipeline.paths import cache_folder
        from pipeline.pictures.options import PictureOptions, parse_cells
        from pipeline.recipes import load_recipe
        from pipeline.view_cache import view_cache

        wanted = () if cells is None else parse_cells(cells)
        chosen = load_recipe(recipe, assignments)
        choice = DataChoice(data, version, None, options.comma_separated("--scenes", scenes))
        view_cache(chosen, cache or cache_folder(chosen), choice, out, against, PictureOptions(min_score, wanted))


def _cache_of(recipe: str, assignments: list[str] | None) -> Path:
    """The recipe's cache; only who does not name a folder waits for what a recipe imports."""
    from pipeline.paths import cache_folder
    from pipeline.recipes import load_recipe

    return cache_folder(load_recipe(recipe, assignments))
