"""What each kind of object looks like. Colours vary within a class around its hue, and front and rear differ."""

import colorsys
from collections.abc import Callable

import numpy as np

from scenes.synthetic.surfaces import FRONT, LEFT, REAR, RIGHT, TOP, Color, Number, Sculptor, Span, Surfaces
from scenes.synthetic.things import Thing

GLASS: Color = (62, 74, 88)
TYRE: Color = (28, 28, 30)
HUB: Color = (120, 122, 126)
HEADLIGHT: Color = (255, 250, 225)
TAILLIGHT: Color = (205, 22, 22)
FULL = (-0.5, 0.5, -0.5, 0.5)


def shape_of(thing: Thing) -> Surfaces:
    """The surfaces of an object, filling its box."""
    rng = np.random.default_rng(thing.look)
    width, length, height = thing.size_wlh_m
    sculptor = Sculptor(np.array([length, width, height]))
    _SHAPES[thing.name](sculptor, rng, thing)
    return sculptor.surfaces()


def hsv(rng: np.random.Generator, hue_deg: Span, saturation: Number, value: Number) -> Color:
    """A colour with a hue drawn from the range, and saturation and value (0-1) scattered a little."""
    hue = rng.uniform(*hue_deg) % 360 / 360
    around = np.clip(np.array([saturation, value]) + rng.uniform(-0.12, 0.12, 2), 0, 1)
    red, green, blue = colorsys.hsv_to_rgb(hue, float(around[0]), float(around[1]))
    return 255 * red, 255 * green, 255 * blue


def darker(color: Color, factor: Number) -> Color:
    """The same colour with less light."""
    return factor * color[0], factor * color[1], factor * color[2]


def _wheels(body: Sculptor, along: tuple[Number, ...], width: Number, height: Number) -> None:
    """Wheels on both sides of the last prism; ``along`` counts from the rear."""
    for side in (LEFT, RIGHT):
        body.decal(side, (0, 1), (0, 0.3 * height), darker(TYRE, 1.4))
        for position in along:
            middle = position if side == RIGHT else 1 - position
            # Two crossed rectangles pass for a round wheel at this size.
            body.decal(side, (middle - 0.34 * width, middle + 0.34 * width), (0, height), TYRE)
            body.decal(side, (middle - width / 2, middle + width / 2), (0.16 * height, 0.84 * height), TYRE)
            body.decal(side, (middle - 0.2 * width, middle + 0.2 * width), (0.3 * height, 0.7 * height), HUB)


def _lights(body: Sculptor, height: Number, size: Number) -> None:
    """White lights at the front and red ones at the rear of the last prism."""
    for across in ((0.03, 0.25), (0.75, 0.97)):
        body.decal(FRONT, across, (height, height + size), HEADLIGHT)
        body.decal(REAR, across, (height, height + size), TAILLIGHT)


def _car(body: Sculptor, rng: np.random.Generator, _: Thing) -> None:
    paint = hsv(rng, (190, 250), rng.choice([0.08, 0.7], p=[0.25, 0.75]), rng.uniform(0.4, 0.9))
    body.prism(FULL, (-0.5, 0.48, -0.48, 0.48), (0, 0.56), paint)
    _wheels(body, (0.2, 0.81), 0.15, 0.62)
    _lights(body, 0.5, 0.22)
    body.decal(FRONT, (0.28, 0.72), (0.3, 0.6), darker(paint, 0.35))
    back = rng.uniform(-0.49, -0.4)
    body.prism((back, 0.24, -0.46, 0.46), (back + 0.1, 0.08, -0.38, 0.38), (0.56, 1), GLASS, level=1)
    body.decal(FRONT, (0, 1), (0.15, 0.9), (120, 140, 158))
    body.decal(TOP, (0, 1), (0, 1), paint)
    for side in (LEFT, RIGHT):
        body.decal(side, (0.46, 0.54), (0, 1), paint)


def _truck(body: Sculptor, rng: np.random.Generator, _: Thing) -> None:
    paint = hsv(rng, (22, 40), 0.8, 0.85)
    cargo = hsv(rng, (25, 50), 0.22, 0.85)
    body.prism((-0.5, 0.26, -0.5, 0.5), (-0.5, 0.26, -0.5, 0.5), (0, 1), cargo)
    _wheels(body, (0.14, 0.34), 0.15, 0.3)
    body.decal(REAR, (0.08, 0.92), (0.3, 0.95), darker(cargo, 0.72))
    body.decal(REAR, (0, 1), (0.18, 0.25), TAILLIGHT)
    for side in (LEFT, RIGHT):
        body.decal(side, (0, 1), (0.55, 0.68), paint)
    tall = rng.uniform(0.7, 0.86)
    body.prism((0.29, 0.5, -0.47, 0.47), (0.29, 0.46, -0.45, 0.45), (0, tall), paint)
    _wheels(body, (0.5,), 0.55, 0.38)
    _lights(body, 0.2, 0.12)
    body.decal(FRONT, (0.07, 0.93), (0.52, 0.9), GLASS)
    for side in (LEFT, RIGHT):
        body.decal(side, (0.2, 0.8), (0.55, 0.88), GLASS)


def _construction_vehicle(body: Sculptor, rng: np.random.Generator, _: Thing) -> None:
    paint = hsv(rng, (46, 56), 0.92, 0.92)
    body.prism((-0.42, 0.3, -0.5, 0.5), (-0.42, 0.3, -0.5, 0.5), (0, 0.28), (52, 50, 48))
    body.prism((-0.5, 0.1, -0.42, 0.42), (-0.5, 0.1, -0.42, 0.42), (0.28, 0.58), paint, level=1)
    body.decal(REAR, (0, 1), (0.1, 0.5), (30, 30, 30))
    body.prism((-0.2, 0.08, -0.36, 0.12), (-0.18, 0.05, -0.34, 0.1), (0.58, 1), paint, level=2)
    body.decal(FRONT, (0.1, 0.9), (0.1, 0.88), (105, 125, 142))
    for side in (LEFT, RIGHT, REAR):
        body.decal(side, (0.12, 0.88), (0.3, 0.85), GLASS)
    reach = rng.uniform(0.55, 0.85)
    body.prism((0.1, 0.24, 0.1, 0.32), (0.3, 0.5, 0.12, 0.3), (0.3, reach), darker(paint, 0.9), level=2)
    body.prism((0.36, 0.5, -0.1, 0.45), (0.4, 0.5, -0.1, 0.45), (0.05, 0.3), (70, 66, 60), level=1)


def _bus(body: Sculptor, rng: np.random.Generator, _: Thing) -> None:
    paint = hsv(rng, (346, 372), 0.82, 0.78)
    body.prism(FULL, (-0.49, 0.49, -0.48, 0.48), (0, 1), paint)
    _wheels(body, (0.22, 0.8), 0.09, 0.26)
    for side in (LEFT, RIGHT):
        for pane in range(6):
            body.decal(side, (0.04 + 0.155 * pane, 0.175 + 0.155 * pane), (0.48, 0.82), GLASS)
    _lights(body, 0.14, 0.09)
    body.decal(FRONT, (0.05, 0.95), (0.38, 0.86), (105, 125, 142))
    body.decal(FRONT, (0.2, 0.8), (0.89, 0.97), (255, 190, 60))
    body.decal(REAR, (0.15, 0.85), (0.55, 0.82), GLASS)
    body.decal(TOP, (0.05, 0.95), (0.04, 0.96), (225, 222, 215))


def _trailer(body: Sculptor, rng: np.random.Generator, _: Thing) -> None:
    paint = hsv(rng, (140, 172), 0.55, 0.62)
    body.prism(FULL, FULL, (0, 1), paint)
    _wheels(body, (0.1, 0.2, 0.3), 0.085, 0.24)
    for side in (LEFT, RIGHT):
        body.decal(side, (0, 1), (0.07, 0.26) if rng.uniform() < 0.3 else (0.2, 0.24), darker(paint, 0.5))
        for rib in np.arange(0.1, 0.95, 0.2):
            body.decal(side, (rib, rib + 0.02), (0.26, 1), darker(paint, 0.7))
    body.decal(REAR, (0.06, 0.48), (0.28, 0.96), (228, 228, 222))
    body.decal(REAR, (0.52, 0.94), (0.28, 0.96), (228, 228, 222))
    body.decal(REAR, (0, 1), (0.17, 0.24), TAILLIGHT)
    body.decal(FRONT, (0, 1), (0, 1), darker(paint, 0.45))


def _rider(body: Sculptor, rng: np.random.Generator, seat: Number) -> None:
    clothes = hsv(rng, (0, 360), 0.6, 0.6)
    body.prism((-0.2, 0.05, -0.36, 0.36), (-0.04, 0.12, -0.4, 0.4), (seat, 0.84), clothes, level=1)
    body.decal(REAR, (0.2, 0.8), (0.2, 0.9), darker(clothes, 0.4))
    body.prism((-0.02, 0.12, -0.2, 0.2), (-0.01, 0.11, -0.16, 0.16), (0.84, 1), (45, 45, 52), level=2)
    body.decal(FRONT, (0.1, 0.9), (0.1, 0.8), (224, 178, 148))


def _motorcycle(body: Sculptor, rng: np.random.Generator, thing: Thing) -> None:
    paint = hsv(rng, (272, 308), 0.75, 0.72)
    top = 0.58 if thing.has_rider else 0.85
    body.prism((-0.5, 0.5, -0.16, 0.16), (-0.42, 0.42, -0.16, 0.16), (0, 0.44), TYRE)
    for side in (LEFT, RIGHT):
        body.decal(side, (0.33, 0.67), (0.1, 0.8), (120, 120, 124))
    body.prism((-0.4, 0.36, -0.24, 0.24), (-0.34, 0.28, -0.2, 0.2), (0.36, top), paint, level=1)
    body.decal(FRONT, (0.15, 0.85), (0.2, 0.8), HEADLIGHT)
    body.decal(REAR, (0.15, 0.85), (0.2, 0.8), TAILLIGHT)
    body.prism((0.2, 0.28, -0.5, 0.5), (0.18, 0.25, -0.5, 0.5), (top - 0.04, top + 0.06), TYRE, level=1)
    if thing.has_rider:
        _rider(body, rng, 0.5)


def _bicycle(body: Sculptor, rng: np.random.Generator, thing: Thing) -> None:
    paint = hsv(rng, (85, 130), 0.8, 0.7)
    for rear, front in ((-0.5, -0.12), (0.12, 0.5)):
        body.prism((rear + 0.06, front - 0.06, -0.07, 0.07), (rear, front, -0.07, 0.07), (0, 0.22), (60, 60, 62))
        body.prism((rear, front, -0.07, 0.07), (rear + 0.06, front - 0.06, -0.07, 0.07), (0.22, 0.46), (60, 60, 62))
    body.prism((-0.3, 0.3, -0.1, 0.1), (-0.2, 0.26, -0.1, 0.1), (0.34, 0.56), paint, level=1)
    body.prism((0.24, 0.32, -0.45, 0.45), (0.2, 0.28, -0.45, 0.45), (0.56, 0.68), TYRE, level=1)
    if thing.has_rider:
        _rider(body, rng, 0.52)
    else:
        body.prism((-0.28, -0.1, -0.14, 0.14), (-0.28, -0.1, -0.14, 0.14), (0.56, 0.7), TYRE, level=1)


def _pedestrian(body: Sculptor, rng: np.random.Generator, thing: Thing) -> None:
    if thing.category.endswith("construction_worker"):
        clothes, trousers = hsv(rng, (68, 82), 0.85, 0.95), hsv(rng, (20, 40), 0.7, 0.6)
    elif thing.category.endswith("police_officer"):
        clothes, trousers = hsv(rng, (225, 240), 0.7, 0.3), (32, 34, 50)
    else:
        clothes, trousers = hsv(rng, (305, 350), 0.6, 0.75), hsv(rng, (0, 360), 0.3, 0.35)
    stride = rng.uniform(0.12, 0.4)
    body.prism((-stride, stride, -0.2, 0.2), (-0.16, 0.16, -0.24, 0.24), (0, 0.47), trousers)
    body.prism((-0.2, 0.2, -0.42, 0.42), (-0.24, 0.24, -0.5, 0.5), (0.47, 0.85), clothes, level=1)
    body.decal(REAR, (0.15, 0.85), (0.1, 0.95), darker(clothes, 0.35))
    body.decal(FRONT, (0.38, 0.62), (0.1, 1.0), (235, 230, 225))
    hair = darker(hsv(rng, (15, 45), 0.5, 0.35), 1.0)
    body.prism((-0.17, 0.17, -0.16, 0.16), (-0.15, 0.15, -0.15, 0.15), (0.85, 1), hair, level=2)
    body.decal(FRONT, (0, 1), (0, 0.8), (226, 182, 152))


def _barrier(body: Sculptor, rng: np.random.Generator, _: Thing) -> None:
    paint = hsv(rng, (-6, 24), 0.85, 0.85)
    body.prism(FULL, (-0.2, 0.2, -0.5, 0.5), (0, 1), hsv(rng, (30, 60), 0.1, 0.82))
    for face in (FRONT, REAR):
        for stripe in range(4):
            body.decal(face, (0.02 + 0.25 * stripe, 0.145 + 0.25 * stripe), (0.1, 0.95), paint)
    body.decal(REAR, (0, 1), (0, 0.35), (70, 70, 72))


def _traffic_cone(body: Sculptor, rng: np.random.Generator, _: Thing) -> None:
    paint = hsv(rng, (14, 24), 0.95, 0.98)
    body.prism(FULL, FULL, (0, 0.08), (40, 38, 36))
    body.prism((-0.36, 0.36, -0.36, 0.36), (-0.06, 0.06, -0.06, 0.06), (0.08, 1), paint, level=1)
    for face in (FRONT, REAR, LEFT, RIGHT):
        body.decal(face, (0, 1), (0.4, 0.68), (242, 242, 238))


_SHAPES: dict[str, Callable[[Sculptor, np.random.Generator, Thing], None]] = {
    "car": _car,
    "truck": _truck,
    "construction_vehicle": _construction_vehicle,
    "bus": _bus,
    "trailer": _trailer,
    "barrier": _barrier,
    "motorcycle": _motorcycle,
    "bicycle": _bicycle,
    "pedestrian": _pedestrian,
    "traffic_cone": _traffic_cone,
}
