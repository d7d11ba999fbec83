"""The ten kinds of road users and things: their sizes, speeds, places and nuScenes names."""

from dataclasses import dataclass
from typing import Literal

Place = Literal["lane", "kerb", "pavement", "yard", "crossing"]


@dataclass(frozen=True)
class Kind:
    """One detection class.

    Attributes:
        categories: nuScenes categories and their weights; all map to this class in the official evaluation.
        size_wlh_m: mean size.
        size_spread: standard deviation of the size, as a fraction.
        top_mps: fastest speed; zero for things.
        share: of the annotated boxes. Rarer kinds are less rare than in reality, as each counts the same in the score.
        places: where it is found, with weights.
        rideable: a person may sit on it, in plain view.
    """

    categories: dict[str, float]
    size_wlh_m: tuple[float, float, float]
    size_spread: float
    top_mps: float
    share: float
    places: dict[Place, float]
    rideable: bool = False


_ROADS: dict[Place, float] = {"lane": 0.5, "kerb": 0.2, "yard": 0.3}

KINDS: dict[str, Kind] = {
    "car": Kind({"vehicle.car": 1.0}, (1.93, 4.55, 1.68), 0.08, 12.0, 0.22, _ROADS),
    "truck": Kind({"vehicle.truck": 1.0}, (2.45, 6.8, 2.85), 0.12, 10.0, 0.08, _ROADS),
    "construction_vehicle": Kind({"vehicle.construction": 1.0}, (2.7, 6.0, 3.0), 0.14, 5.0, 0.06, _ROADS),
    "bus": Kind({"vehicle.bus.rigid": 0.8, "vehicle.bus.bendy": 0.2}, (2.9, 10.5, 3.4), 0.08, 10.0, 0.06, _ROADS),
    "trailer": Kind({"vehicle.trailer": 1.0}, (2.7, 9.0, 3.6), 0.14, 9.0, 0.06, _ROADS),
    "barrier": Kind({"movable_object.barrier": 1.0}, (2.3, 0.5, 1.0), 0.1, 0.0, 0.09, {"kerb": 0.6, "pavement": 0.4}),
    "motorcycle": Kind(
        {"vehicle.motorcycle": 1.0},
        (0.8, 2.1, 1.5),
        0.08,
        11.0,
        0.08,
        {"lane": 0.4, "kerb": 0.4, "yard": 0.2},
        rideable=True,
    ),
    "bicycle": Kind(
        {"vehicle.bicycle": 1.0}, (0.62, 1.75, 1.45), 0.08, 7.0, 0.08, {"kerb": 0.5, "pavement": 0.5}, rideable=True
    ),
    "pedestrian": Kind(
        {
            "human.pedestrian.adult": 0.78,
            "human.pedestrian.child": 0.08,
            "human.pedestrian.construction_worker": 0.1,
            "human.pedestrian.police_officer": 0.04,
        },
        (0.66, 0.72, 1.76),
        0.07,
        3.0,
        0.17,
        {"pavement": 0.45, "crossing": 0.25, "yard": 0.2, "kerb": 0.1},
    ),
    "traffic_cone": Kind(
        {"movable_object.trafficcone": 1.0}, (0.42, 0.42, 0.95), 0.12, 0.0, 0.10, {"kerb": 0.7, "pavement": 0.3}
    ),
}
"""By detection class, in ``schemas.boxes.CLASS_NAMES`` order."""
