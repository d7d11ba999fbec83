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
    """Builds a body from prisms given in fractions of its bounding box: x, y in [-0.5, 0.5], z in [0, 1]."""

    def __init__(self, size_lwh_m: Array) -> None:
        self._size = np.asarray(size_lwh_m, dtype=np.float64)
        self._parts: list[Surfaces] = []
        self._faces = np.zeros((5, 4, 3))
        self._normals = np.zeros((5, 3))
        self._level = 0

    def prism(
        self,
        bottom: Sequence[Number],
        top: Sequence[Number],
        heights: Span,
        color: Color,
        level: int = 0,
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
        corners *= self._size
        faces = corners[_FACES]
        normals = np.cross(faces[:, 1] - faces[:, 0], faces[:, 3] - faces[:, 0])
        normals += np.cross(faces[:, 3] - faces[:, 2], faces[:, 1] - faces[:, 2])
        self._normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        self._faces, self._level = faces, level
        self._add(faces, self._normals, color, is_decal=False)
        return self

    def decal(self, face: int, across: Span, up: Span, color: Color) -> "Sculptor":
        """Paint a rectangle on a face of the last prism, in fractions of that face as seen from outside."""
        u, v = np.array([*across, *across[::-1]]), np.repeat(up, 2)
        weights = np.stack([(1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v], axis=1)
        corners = weights @ self._faces[face]
        self._add(corners[None], self._normals[face : face + 1], color, is_decal=True)
        return self

    def surfaces(self) -> Surfaces:
        """Everything added so far."""
        return join(self._parts)

    def _add(self, corners_m: Array, normals: Array, color: Color, *, is_decal: bool) -> None:
        count = len(corners_m)
        center = self._faces.reshape(-1, 3).mean(axis=0)
        self._parts.append(
            Surfaces(
                corners_m,
                normals,
                np.tile(np.array(color, dtype=np.float64), (count, 1)),
                np.full(count, self._level, dtype=np.int64),
                np.tile(center, (count, 1)),
                np.full(count, is_decal),
            )
        )
