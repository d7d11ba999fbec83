"""Which frames of a scene get pictures of their own."""

import numpy as np


def spread(length: int, count: int) -> tuple[int, ...]:
    """At most ``count`` of ``length`` steps, evenly spaced, the first and the last among them."""
    steps = np.linspace(0, length - 1, min(length, count)).round().astype(int)
    return tuple(np.unique(steps).tolist())
