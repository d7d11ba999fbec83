"""The options of the programs, each declared once. Their names are a promise: docs and scripts rely on them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from schemas.errors import RecipeError

RecipeOption = Annotated[
    str, typer.Option("--recipe", help="Name of a shipped recipe, or a recipe.yaml.", metavar="NAME|FILE.yaml")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Replace one value of the recipe; may be repeated.", metavar="dotted.key=value"),
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="nuScenes directory. Default: the embedded synthetic world.", metavar="DIR"),
]
VersionOption = Annotated[str | None, typer.Option("--version", help="nuScenes version.", metavar="v1.0-trainval")]
SplitOption = Annotated[
    str | None, typer.Option("--split", help="Split of the version. Default: its training split.", metavar="NAME")
]
ScoredSplitOption = Annotated[
    str | None, typer.Option("--split", help="Split to score. Default: the version's validation split.", metavar="NAME")
]
ScenesOption = Annotated[
    str | None, typer.Option("--scenes", help="Only these scenes of the split.", metavar="scene-0001,scene-0002")
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="Weights of the detector: .pth as published, or .safetensors.", metavar="FILE"),
]
AllowPartialOption = Annotated[
    bool,
    typer.Option("--allow-partial", help="Load what fits of a checkpoint whose entries do not all match."),
]
UntrainedOption = Annotated[
    bool, typer.Option("--untrained", help="Dry run: seeded random teacher weights, recorded in the cache.")
]
AllowUntrainedOption = Annotated[
    bool,
    typer.Option("--allow-untrained-teacher", help="Train from a cache that was made with --untrained."),
]
ArraysOption = Annotated[
    str | None, typer.Option("--arrays", help="Features to cache. Default: the recipe's.", metavar="bev,query_boxes")
]
TierOption = Annotated[
    str | None,
    typer.Option(
        "--tier", help="How BEV features are stored; archive is int8, compressed.", metavar="int8|float16|archive"
    ),
]
TeacherFileOption = Annotated[
    str | None,
    typer.Option(
        "--teacher", help="A teacher of your own: docs/bring_your_own_teacher.md.", metavar="FILE.py:function"
    ),
]
BevGridOption = Annotated[
    int | None,
    typer.Option("--bev-grid", min=1, help="Cache BEV features averaged to N × N cells.", metavar="N"),
]
EngineOption = Annotated[
    Literal["serial", "dask"],
    typer.Option("--engine", help="Who works: this process, or the workers of a dask cluster."),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option("--scheduler", help="A running dask scheduler; implies --engine dask.", metavar="tcp://HOST:PORT"),
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Processes of the dask engine on this machine. Default: one a GPU."),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, max=512, help="Torch threads of each process. Default: cores ÷ workers."),
]
PartOption = Annotated[
    str | None,
    typer.Option("--part", help="Only this share of the scenes, for independent runs on one cache.", metavar="i/n"),
]
CacheOption = Annotated[
    Path | None, typer.Option("--cache", help="The teacher cache. Default: out/<recipe>/teacher-cache.", metavar="DIR")
]
OutOption = Annotated[Path | None, typer.Option("--out", help="Where the program writes.", metavar="DIR")]
DeviceOption = Annotated[str, typer.Option("--device", help="Where the networks run.", metavar="cpu|cuda")]
StudentOption = Annotated[
    str | None,
    typer.Option("--student", help="Another student: a detector of the catalogue.", metavar="bevformer-small"),
]
InitOption = Annotated[
    Path | None,
    typer.Option("--init", help="Start the student from the weights of a whole detector.", metavar="FILE"),
]
InitBackboneOption = Annotated[
    Path | None,
    typer.Option("--init-backbone", help="Start its image backbone from a ResNet's weights.", metavar="FILE"),
]
DistillerOption = Annotated[
    str | None, typer.Option("--distiller", help="Distillers to apply together, or none.", metavar="NAME[,NAME]")
]
MaxStepsOption = Annotated[
    int | None, typer.Option("--max-steps", min=1, help="Stop after this many training steps.", metavar="N")
]
PicturesOption = Annotated[
    int,
    typer.Option("--pictures", min=0, help="Frames to draw; 0 draws nothing, the devkit's plots neither.", metavar="N"),
]
SeedOption = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of weights and clip order.", metavar="N")]

TwinOption = Annotated[
    bool, typer.Option("--twin/--no-twin", help="Train the same student without a teacher, too, and compare.")
]


def comma_separated(option: str, text: str | None) -> tuple[str, ...]:
    """The parts of ``a,b``; none when the option was not given.

    Raises:
        RecipeError: it was given, and names nothing or something twice; nothing would silently mean everything.
    """
    if text is None:
        return ()
    parts = tuple(part.strip() for part in text.split(","))
    if "" in parts or len(set(parts)) < len(parts):
        raise RecipeError(f"{option} {text!r}: expected names separated by commas, each once; or leave the option out.")
    return parts


def comma_separated_numbers(option: str, text: str | None) -> tuple[int, ...]:
    """The numbers of ``0,1``; none when the option was not given.

    Raises:
        RecipeError: it was given, and is no list of whole numbers from 0 on, each once.
    """
    parts = comma_separated(option, text)
    if not all(part.isdecimal() for part in parts):
        raise RecipeError(
            f"{option} {text!r}: expected whole numbers from 0 on, separated by commas, e.g. {option} 0,1,2."
        )
    return tuple(int(part) for part in parts)
