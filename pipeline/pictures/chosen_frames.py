"""Which frames of a split are shown: spread over it, and with something to see."""

from collections.abc import Sequence

import numpy as np

from pipeline.matching import MatchedFrame


def choose_frames(frames: Sequence[MatchedFrame], count: int) -> tuple[int, ...]:
    """At most ``count`` frames: of each of so many equal stretches of the split, the one with the most annotations.

    The choice depends on the annotations alone, so two detectors are shown on the same frames.

    Args:
        frames: of a split, in order.
        count: how many are wanted.

    Returns:
        Positions in ``frames``, ascending.
    """
    if not frames or count < 1:
        return ()
    stretches = np.array_split(np.arange(len(frames)), min(count, len(frames)))
    return tuple(int(max(stretch, key=lambda position: len(frames[position].annotated))) for stretch in stretches)
