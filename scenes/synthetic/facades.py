"""What scenery looks like."""

import numpy as np

from scenes.synthetic.scenery import Block
from scenes.synthetic.shapes import FULL, darker, hsv
from scenes.synthetic.surfaces import FRONT, LEFT, REAR, RIGHT, TOP, Sculptor, Surfaces

_SIDES = (FRONT, REAR, LEFT, RIGHT)


def facade_of(block: Block) -> Surfaces:
    """The surfaces of a block, filling its box."""
    rng = np.random.default_rng(block.look)
    body = Sculptor(block.size_lwh_m)
    if block.kind == "house":
        _house(body, rng, block)
    elif block.kind == "container":
        _container(body, rng)
    elif block.kind == "wall":
        _wall(body, rng)
    else:
        _hedge(body, rng)
    return body.surfaces()


def _house(body: Sculptor, rng: np.random.Generator, block: Block) -> None:
    plaster = hsv(rng, (18, 55), 0.22, 0.72)
    body.prism(FULL, FULL, (0, 1), plaster)
    floors = max(1, round(block.size_lwh_m[2] / 3.2))
    for floor in range(floors):
        low = (floor + 0.3) / floors
        for face in _SIDES:
            for pane in range(3):
                across = (0.1 + 0.3 * pane, 0.3 + 0.3 * pane)
                body.decal(face, across, (low, low + 0.45 / floors), darker((96, 112, 128), rng.uniform(0.6, 1.3)))
    body.decal(TOP, (0, 1), (0, 1), darker(plaster, 0.6))


def _container(body: Sculptor, rng: np.random.Generator) -> None:
    paint = hsv(rng, (5, 30), 0.35, 0.48)
    body.prism(FULL, FULL, (0, 1), paint)
    for face in (LEFT, RIGHT):
        for rib in np.arange(0.06, 0.95, 0.12):
            body.decal(face, (rib, rib + 0.04), (0.05, 0.95), darker(paint, 0.8))


def _wall(body: Sculptor, rng: np.random.Generator) -> None:
    bricks = hsv(rng, (8, 40), 0.25, 0.58)
    body.prism(FULL, FULL, (0, 1), bricks)
    for face in (LEFT, RIGHT):
        for course in (0.2, 0.45, 0.7):
            body.decal(face, (0, 1), (course, course + 0.04), darker(bricks, 0.82))
        body.decal(face, (0, 1), (0.92, 1), darker(bricks, 1.15))


def _hedge(body: Sculptor, rng: np.random.Generator) -> None:
    leaves = hsv(rng, (80, 120), 0.45, 0.4)
    body.prism(FULL, (-0.49, 0.49, -0.45, 0.45), (0, 1), leaves)
    for face in (LEFT, RIGHT):
        for _ in range(7):
            across, up = rng.uniform(0, 0.8), rng.uniform(0.05, 0.75)
            body.decal(face, (across, across + 0.18), (up, up + 0.2), darker(leaves, rng.uniform(0.75, 1.25)))
