"""A BEV feature as colours: the three main directions of a scene's cells as red, green and blue."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CELLS_PER_MAP = 8192
_STRETCH_PERCENT = (1, 99)


@dataclass(frozen=True, eq=False)
class BevColors:
    """A fixed way from features to colours: the same feature has the same colour in every frame.

    Attributes:
        mean: (channel,) float64, taken off first.
        directions: (channel, 3) float64, orthonormal columns.
        low, high: (3,) float64, the components that become 0 and 1.
    """

    mean: NDArray[np.float64]
    directions: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def rgb(self, bev: NDArray[np.float32]) -> NDArray[np.float64]:
        """Colours of a map.

        Args:
            bev: (rows, cols, channel) float32, finite.

        Returns:
            (rows, cols, 3) float64 in [0, 1].
        """
        components = (bev.reshape(-1, bev.shape[-1]) - self.mean) @ self.directions
        span = np.maximum(self.high - self.low, 1e-12)
        colors: NDArray[np.float64] = np.clip((components - self.low) / span, 0, 1).reshape(*bev.shape[:2], 3)
        return colors


def fit_colors(maps: Sequence[NDArray[np.float32]]) -> BevColors:
    """Principal components of the cells of some maps of one scene, stretched between their 1st and 99th percentile.

    A direction's sign is fixed by its largest loading, so that two scenes of one teacher look alike.

    Args:
        maps: at least one, (rows, cols, channel) float32, finite; large maps are thinned out.
    """
    cells = np.concatenate([_some_cells(bev) for bev in maps]).astype(np.float64)
    mean = cells.mean(axis=0)
    _, directions = np.linalg.eigh((cells - mean).T @ (cells - mean))
    main = directions[:, ::-1][:, :3]
    main = main * np.sign(main[np.abs(main).argmax(axis=0), np.arange(main.shape[1])])
    main = np.pad(main, ((0, 0), (0, 3 - main.shape[1])))
    low, high = np.percentile((cells - mean) @ main, _STRETCH_PERCENT, axis=0)
    return BevColors(mean, main, low, high)


def _some_cells(bev: NDArray[np.float32]) -> NDArray[np.float32]:
    cells = bev.reshape(-1, bev.shape[-1])
    return cells[:: max(1, len(cells) // _CELLS_PER_MAP)]
