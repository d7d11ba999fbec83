"""What a person may choose about the pictures."""

from dataclasses import dataclass


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
