"""The command line's names are a promise: changing one is a decision that this test makes visible."""

import typer
from typer.testing import CliRunner

from pipeline.__main__ import app

RECIPE = {"--recipe", "--set"}
DATA = {"--data", "--version"}
WEIGHTS = {"--checkpoint", "--allow-partial", "--untrained"}
KEPT = {"--arrays", "--tier", "--bev-grid", "--cache", "--device", "--threads"}
PROMISED = {
    "make-scenes": RECIPE | {"--out"},
    "demo-teacher": RECIPE | DATA | {"--split", "--scenes", "--out", "--device", "--max-steps", "--seed", "--ship"},
    "cache-teacher": RECIPE
    | DATA
    | WEIGHTS
    | KEPT
    | {"--split", "--scenes", "--engine", "--scheduler", "--workers"}
    | {"--teacher", "--part"},
    "plan": RECIPE
    | DATA
    | KEPT
    | {"--split", "--scenes", "--checkpoint", "--teacher", "--time-frames"}
    | {"--frames", "--workers"},
    "verify-cache": RECIPE | WEIGHTS | {"--data", "--cache", "--device", "--threads", "--live"},
    "repair-cache": RECIPE | {"--cache"},
    "train-student": RECIPE
    | DATA
    | {"--split", "--scenes", "--cache", "--out", "--device", "--distiller", "--max-steps", "--seed"}
    | {"--student", "--init", "--init-backbone"}
    | {"--allow-untrained-teacher", "--twin", "--pictures"},
    "evaluate": RECIPE
    | DATA
    | {"--student", "--split", "--checkpoint", "--out", "--device", "--model", "--pictures"}
    | {"--history"},
    "gains": RECIPE
    | DATA
    | {"--cache", "--out", "--rows", "--seeds", "--jobs", "--threads", "--tune", "--report"}
    | {"--allow-untrained-teacher"},
    "view-cache": RECIPE | DATA | {"--scenes", "--cache", "--out", "--against"} | {"--min-score", "--cells"},
}


def test_commands_and_their_options() -> None:
    commands = typer.main.get_command(app).commands
    found = {
        name: {option for parameter in command.params for option in parameter.opts if not option.startswith("--no-")}
        for name, command in commands.items()
    }
    assert found == PROMISED


def test_threads_beyond_any_machine_are_refused() -> None:
    """Torch dies of them without a word."""
    found = CliRunner().invoke(app, ["cache-teacher", "--threads", "9999"])
    assert found.exit_code == 2
    assert "less than or equal to 512" in " ".join(found.output.replace("│", " ").split())
