"""Weights that come with the program: where they are. What they were trained on is told in the record beside each."""

from pathlib import Path

PREFIX = "shipped:"
"""Begins their names where a file of weights is asked for, as in ``shipped:demo-start``."""

FOLDER = Path(__file__).resolve().parent / "shipped_weights"


def shipped_file(name: str, folder: Path = FOLDER) -> Path:
    """The safetensors file of that name, whether it is there or not."""
    return folder / f"{name}.safetensors"
