"""How much of each annotated object is seen now, and when it was last seen well: from nuScenes' visibility levels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenes.table_rows import Row

LEVELS: Mapping[str, int] = {"v0-40": 1, "v40-60": 2, "v60-80": 3, "v80-100": 4}
"""nuScenes' names of the shares of an object that all cameras together see, in per cent, as numbers; 0 is unknown."""

HIDDEN_LEVEL = 1
SEEN_LEVEL = 3
"""From this level on (60 %) an object counts as seen."""


@dataclass(frozen=True, eq=False)
class Sightings:
    """One row for each annotation of a frame, in the order of ``Frame.boxes``.

    Attributes:
        visibility: (N,) int8 nuScenes level, 1 (0-40 % seen) to 4 (80-100 %); 0 where the tables do not tell.
        unseen_keyframes: (N,) int16, keyframes since the object was last seen to 60 % or more: 0 when it is now, -1
            when it has not been in this scene so far.
    """

    visibility: NDArray[np.int8]
    unseen_keyframes: NDArray[np.int16]

    def hidden(self) -> NDArray[np.bool_]:
        """(N,) bool: at most 40 % of the object is seen now."""
        hidden: NDArray[np.bool_] = self.visibility == HIDDEN_LEVEL
        return hidden

    def hidden_but_seen_within(self, keyframes: int) -> NDArray[np.bool_]:
        """(N,) bool: hidden now, and seen to 60 % or more in one of so many keyframes before."""
        return self.hidden() & (self.unseen_keyframes > 0) & (self.unseen_keyframes <= keyframes)


def visibility_arrays(
    visibility: Sequence[Row], annotations: Sequence[Row], number_of_sample: Mapping[str, int]
) -> dict[str, dict[str, int]]:
    """Level and keyframes unseen of every annotation, by token.

    Args:
        visibility: rows of the table of levels.
        annotations: all rows of ``sample_annotation``; an object's rows lie in one scene.
        number_of_sample: running number by sample token, consecutive and in time order within each scene.

    Returns:
        ``level`` and ``unseen``: numbers as in ``Sightings`` by annotation token.
    """
    level_of = {row["token"]: LEVELS.get(row.get("level", ""), 0) for row in visibility}
    tokens = [row["token"] for row in annotations]
    levels = np.array([level_of.get(row.get("visibility_token", ""), 0) for row in annotations], dtype=np.int64)
    instances = {
        token: number for number, token in enumerate(dict.fromkeys(row["instance_token"] for row in annotations))
    }
    instance = np.array([instances[row["instance_token"]] for row in annotations], dtype=np.int64)
    sample = np.array([number_of_sample[row["sample_token"]] for row in annotations], dtype=np.int64)
    unseen = _keyframes_unseen(instance, sample, levels >= SEEN_LEVEL)
    return {
        "level": dict(zip(tokens, levels.tolist(), strict=True)),
        "unseen": dict(zip(tokens, unseen.tolist(), strict=True)),
    }


def _keyframes_unseen(instance: NDArray[np.int64], sample: NDArray[np.int64], seen: NDArray[np.bool_]) -> NDArray[Any]:
    """Samples since each row's object was last seen, -1 before the first time; all arrays are (n,)."""
    if not len(instance):
        return np.zeros(0, dtype=np.int64)
    order = np.lexsort((sample, instance))
    # Numbers of one object are all above those of the object before it, so one running maximum serves all objects.
    base = instance[order] * (sample.max() + 2)
    last_seen = np.maximum.accumulate(base + np.where(seen[order], sample[order] + 1, 0)) - base - 1
    unseen = np.empty(len(instance), dtype=np.int64)
    unseen[order] = np.where(last_seen >= 0, sample[order] - last_seen, -1)
    return unseen
