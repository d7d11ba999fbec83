"""Sun, sky light and haze of a scene."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

HAZE_M = 160.0
"""Distance at which two thirds of a colour have gone into the haze."""


@dataclass(frozen=True, eq=False)
class Light:
    """The weather of a scene.

    Attributes:
        sun_azimuth_rad: global, counter-clockwise from x.
        sun_elevation_rad: above the horizon.
        ambient: share of light that comes from everywhere, 0-1.
        tint: (3,) colour of the light, around 1.
        haze: (3,) RGB of the far distance.
    """

    sun_azimuth_rad: float
    sun_elevation_rad: float
    ambient: float
    tint: Array
    haze: Array

    def towards_sun(self, yaw_rad: float) -> Array:
        """(3,) unit vector in a frame on the ground with this global yaw."""
        azimuth, flat = self.sun_azimuth_rad - yaw_rad, np.cos(self.sun_elevation_rad)
        return np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(self.sun_elevation_rad)])

    def shadow_of(self, height_m: Array, yaw_rad: float) -> Array:
        """(N, 2) how far the tops of things of these heights (N,) throw their shadow."""
        azimuth = self.sun_azimuth_rad - yaw_rad
        length = height_m / np.tan(self.sun_elevation_rad)
        return np.stack([-np.cos(azimuth) * length, -np.sin(azimuth) * length], axis=1)

    def shade(self, colors: Array, facing_sun: Array) -> Array:
        """(N, 3) colours under this light; ``facing_sun`` (N,) is the cosine between normal and sun."""
        lit: Array = colors * (self.ambient + (1.25 - self.ambient) * np.clip(facing_sun, 0, 1))[:, None] * self.tint
        return lit

    def veil(self, distance_m: Array) -> Array:
        """Share of haze, 0-1, before something at this distance."""
        share: Array = 1 - np.exp(-distance_m / HAZE_M)
        return share


def draw_light(rng: np.random.Generator) -> Light:
    """The light of one scene."""
    return Light(
        sun_azimuth_rad=float(rng.uniform(-np.pi, np.pi)),
        sun_elevation_rad=float(np.radians(rng.uniform(28, 65))),
        ambient=float(rng.uniform(0.5, 0.68)),
        tint=rng.uniform(0.93, 1.05, 3),
        haze=rng.uniform((188, 196, 204), (218, 218, 222)),
    )
