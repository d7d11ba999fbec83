"""Commands that run studies: many trainings, and what they say together."""

from typing import Annotated

import typer

from pipeline import options


def gains(
    recipe: options.RecipeOption = "demo",
    assignments: options.SetOption = None,
    data: options.DataOption = None,
    version: options.VersionOption = None,
    cache: options.CacheOption = None,
    out: options.OutOption = None,
    rows: Annotated[
        str | None, typer.Option("--rows", help="Only these rows of the study.", metavar="none,feature")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="These seeds for every row. Default: the row's own.", metavar="0,1")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=64, help="Runs at once.")] = 1,
    threads: Annotated[int, typer.Option("--threads", min=1, max=512, help="Torch threads of each run.")] = 1,
    tune: Annotated[
        str | None,
        typer.Option(
            "--tune", help="Score on the tune scenes and file the runs in tuning.csv under this label.", metavar="LABEL"
        ),
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="Only write the report of what has been run.")] = False,
    allow_untrained_teacher: options.AllowUntrainedOption = False,
) -> None:
    """Measure what each distiller gains, over several seeds; finished runs are kept and never made twice."""
    from pipeline.failures import told_clearly

    with told_clearly("Finished runs are kept; run the same command to go on with the others."):
        from pipeline.dataset import DataChoice
        from pipeline.gains import program
        from schemas.errors import RecipeError

        if report:
            if rows or seeds or tune is not None:
                raise RecipeError(
                    "--report writes the report of all runs that are finished, and takes no --rows, --seeds or --tune. "
                    "Leave those out, or leave out --report to run what is missing"
                )
            program.report(recipe, assignments or ())
            return
        choice = program.GainsChoice(
            recipe=recipe,
            assignments=tuple(assignments or ()),
            data=DataChoice(data, version),
            cache=cache,
            rows=options.comma_separated("--rows", rows),
            seeds=options.comma_separated_numbers("--seeds", seeds),
            label=tune,
            out=out,
            jobs=jobs,
            threads=threads,
            allow_untrained_teacher=allow_untrained_teacher,
        )
        program.gains(choice)
