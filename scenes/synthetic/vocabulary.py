"""The rows of the nuScenes tables that are the same in every world: categories, attributes, visibilities, sensors."""

import hashlib

from schemas.frames import CAMERAS

CATEGORIES: tuple[str, ...] = (
    "animal",
    "human.pedestrian.adult",
    "human.pedestrian.child",
    "human.pedestrian.construction_worker",
    "human.pedestrian.personal_mobility",
    "human.pedestrian.police_officer",
    "human.pedestrian.stroller",
    "human.pedestrian.wheelchair",
    "movable_object.barrier",
    "movable_object.debris",
    "movable_object.pushable_pullable",
    "movable_object.trafficcone",
    "static_object.bicycle_rack",
    "vehicle.bicycle",
    "vehicle.bus.bendy",
    "vehicle.bus.rigid",
    "vehicle.car",
    "vehicle.construction",
    "vehicle.emergency.ambulance",
    "vehicle.emergency.police",
    "vehicle.motorcycle",
    "vehicle.trailer",
    "vehicle.truck",
)

ATTRIBUTES: tuple[str, ...] = (
    "vehicle.moving",
    "vehicle.stopped",
    "vehicle.parked",
    "cycle.with_rider",
    "cycle.without_rider",
    "pedestrian.sitting_lying_down",
    "pedestrian.standing",
    "pedestrian.moving",
)

VISIBILITY_BOUNDS = (0.4, 0.6, 0.8)
"""Upper bounds of the first three visibility levels, as the share of an object that is seen."""

LIDAR = "LIDAR_TOP"

Row = dict[str, object]


def token(*names: object) -> str:
    """32 hexadecimal digits that stand for these names; the same names give the same token."""
    return hashlib.blake2b("/".join(map(str, names)).encode(), digest_size=16).hexdigest()


def shared_tables() -> dict[str, list[Row]]:
    """The four tables that no option changes."""
    levels = ("v0-40", "v40-60", "v60-80", "v80-100")
    channels = [(LIDAR, "lidar"), *((camera, "camera") for camera in CAMERAS)]
    return {
        "category": [{"token": token("category", name), "name": name, "description": ""} for name in CATEGORIES],
        "attribute": [{"token": token("attribute", name), "name": name, "description": ""} for name in ATTRIBUTES],
        "visibility": [
            {"token": str(number), "level": level, "description": f"share of the object seen: {level[1:]} %"}
            for number, level in enumerate(levels, start=1)
        ],
        "sensor": [
            {"token": token("sensor", channel), "channel": channel, "modality": modality}
            for channel, modality in channels
        ],
    }
