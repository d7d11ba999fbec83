"""What a person may choose about the pictures."""

import re
from dataclasses import dataclass

from schemas.errors import RecipeError


@dataclass(frozen=True)
class PictureOptions:
    """Choices for ``view-cache``.

    Attributes:
        min_score: the teacher's boxes below it are not drawn.
        cells: (row, col) of the BEV cells whose temporal attention is drawn; chosen frame by frame when empty.
        stills: frames of each scene that get pictures of their own, evenly spread.
    """

    min_score: float = 0.3
    cells: tuple[tuple[int, int], ...] = ()
    stills: int = 4


def parse_cells(text: str) -> tuple[tuple[int, int], ...]:
    """Cells written as ``row,col;row,col``.

    Raises:
        RecipeError: anything else.
    """
    parts = [re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", part) for part in text.split(";")]
    found = tuple((int(part[1]), int(part[2])) for part in parts if part is not None)
    if len(found) < len(parts):
        raise RecipeError(f"--cells {text!r}: expected rows and columns as in ARGS=\"--cells '20,20;31,8'\".")
    return found
