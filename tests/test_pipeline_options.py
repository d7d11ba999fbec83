"""The command line's names are a promise: changing one is a decision that this test makes visible."""

import typer

from pipeline.__main__ import app

RECIPE = {"--recipe", "--set"}
DATA = {"--data", "--version"}
PROMISED = {
    "make-scenes": RECIPE | {"--out"},
    "demo-teacher": RECIPE | DATA | {"--split", "--scenes", "--out", "--device", "--max-steps", "--seed"},
    "cache-teacher": RECIPE
    | DATA
    | {
        "--split",
        "--scenes",
        "--checkpoint",
        "--allow-partial",
        "--untrained",
        "--arrays",
        "--tier",
        "--cache",
        "--device",
    },
    "train-student": RECIPE
    | DATA
    | {"--split", "--scenes", "--cache", "--out", "--device", "--distiller", "--max-steps", "--seed"}
    | {"--allow-untrained-teacher"},
    "evaluate": RECIPE | DATA | {"--split", "--checkpoint", "--out", "--device", "--model"},
    "view-cache": RECIPE | DATA | {"--scenes", "--cache", "--out"},
}


def test_commands_and_their_options() -> None:
    commands = typer.main.get_command(app).commands
    found = {
        name: {option for parameter in command.params for option in parameter.opts if not option.startswith("--no-")}
        for name, command in commands.items()
    }
    assert found == PROMISED
