"""Painted four-cornered surfaces and the prisms they are taken from: all that the renderer knows of shapes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Number = int | float
"""Whole numbers are welcome where shapes are written down by hand."""
Span = tuple[Number, Number]
Color = tuple[Number, Number, Number]
"""Red, green, blue in 0-255."""

FRONT, REAR, LEFT, RIGHT, TOP = range(5)
_FACES = np.array([[1, 0, 4, 5], [3, 2, 6, 7], [0, 3, 7, 4], [2, 1, 5, 6], [4, 7, 6, 5]])
"""Corners of each face, seen from outside: bottom left, bottom right, top right, top left. Prism corners are numbered
front-left, front-right, rear-right, rear-left, first the bottom, then the top."""


@dataclass(frozen=True, eq=False)
class Surfaces:
    """Surfaces of one body in its own frame (x forward, y left, z up, origin on the ground below its centre), metres.

    Attributes:
        corners_m: (Q, 4, 3).
        normals: (Q, 3) outward unit vectors.
        colors: (Q, 3) red, green, blue in 0-255.
        levels: (Q,) int64; a higher level is painted later: what stands upon something else.
        part_centers_m: (Q, 3) centre of the convex part a surface belongs to.
        is_decal: (Q,) bool; painted on a face, after it.
    """

    corners_m: Array
    normals: Array
    colors: Array
    levels: NDArray[np.int64]
    part_centers_m: Array
    is_decal: NDArray[np.bool_]


def join(bodies: Sequence[Surfaces]) -> Surfaces:
    """The surfaces of several bodies, one after the other."""
    names = ("corners_m", "normals", "colors", "levels", "part_centers_m", "is_decal")
    return Surfaces(*(np.concatenate([getattr(body, name) for body in bodies]) for name in names))


class Sculptor:
    """Builds a body from prisms given in fractions of its bounding box: x, y in [-0.5, 0.5], z in [0, 1].

    Every surface is a rectangle on a face of a prism; the face itself is the whole of it.
    """

    def __init__(self, size_lwh_m: Array) -> None:
        self._size_m = np.asarray(size_lwh_m, dtype=np.float64)
        self._prisms: list[Array] = []
        self._levels: list[int] = []
        self._places: list[tuple[int, int]] = []
        self._rectangles: list[tuple[Number, Number, Number, Number]] = []
        self._colors: list[Color] = []
        self._is_decal: list[bool] = []

    def prism(
        self, bottom: Sequence[Number], top: Sequence[Number], heights: Span, color: Color, level: int = 0
    ) -> "Sculptor":
        """Add a prism; the decals that follow are painted on it.

        Args:
            bottom: x from, x to, y from, y to of its lower end.
            top: the same of its upper end.
            heights: z of both ends.
            color: of all faces.
            level: painted after the prisms of lower levels.
        """
        corners = np.array(
            [
                [x, y, z]
                for (rear, front, right, left), z in zip((bottom, top), heights, strict=True)
                for x, y in ((front, left), (front, right), (rear, right), (rear, left))
            ]
        )
        self._prisms.append(corners * self._size_m)
        self._levels.append(level)
        for face in range(len(_FACES)):
            self._add(face, (0, 1, 0, 1), color, is_decal=False)
        return self

    def decal(self, face: int, across: Span, up: Span, color: Color) -> "Sculptor":
        """Paint a rectangle on a face of the last prism, in fractions of that face as seen from outside."""
        self._add(face, (*across, *up), color, is_decal=True)
        return self

    def surfaces(self) -> Surfaces:
        """Everything added so far."""
        corners = np.stack(self._prisms)
        prism, face = np.array(self._places).T
        faces = corners[prism[:, None], _FACES[face]]
        left, right, low, high = np.array(self._rectangles, dtype=np.float64).T
        across, up = np.stack([left, right, right, left], axis=1), np.stack([low, low, high, high], axis=1)
        weights = np.stack([(1 - across) * (1 - up), across * (1 - up), across * up, (1 - across) * up], axis=2)
        # Newell's sum over two corners: an end that has shrunk to an edge still leaves a normal.
        normals = np.cross(faces[:, 1] - faces[:, 0], faces[:, 3] - faces[:, 0])
        normals += np.cross(faces[:, 3] - faces[:, 2], faces[:, 1] - faces[:, 2])
        return Surfaces(
            corners_m=weights @ faces,
            normals=normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12),
            colors=np.array(self._colors, dtype=np.float64),
            levels=np.array(self._levels, dtype=np.int64)[prism],
            part_centers_m=corners.mean(axis=1)[prism],
            is_decal=np.array(self._is_decal, dtype=np.bool_),
        )

    def _add(
        self, face: int, rectangle: tuple[Number, Number, Number, Number], color: Color, *, is_decal: bool
    ) -> None:
        self._places.append((len(self._prisms) - 1, face))
        self._rectangles.append(rectangle)
        self._colors.append(color)
        self._is_decal.append(is_decal)
