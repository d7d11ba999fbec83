"""Which frames a training step sees: clips of consecutive keyframes, planned from the frame index alone.

A clip is a few keyframes of one scene in time order. The last one is supervised; those before it give the student its
memory. Every usable frame is last exactly once per epoch, in an order drawn from (seed, epoch), so the place in the
sequence is two numbers, ``(epoch, position)``, and resuming is starting there. Reading is somebody else's work.

At the start of a scene the clip is shorter, never padded: BEVFormer starts each scene from an empty BEV, and a student
that is evaluated so should be trained so.

A clip's history costs a forward pass a frame and ends with the clip. Streaming is the other way to have a memory: whole
scenes run side by side, every frame is supervised, and each step goes on from the memory that the step before it left.
That history is as long as the scene and costs nothing, but the frames of consecutive batches are much alike.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import DataError


class ClipOptions(BaseModel):
    """How clips are cut.

    Attributes:
        length: keyframes in a clip, the supervised one included (4 for Base, 3 for Small and Tiny as published).
        mode: ``consecutive``: the supervised keyframe and the ``length - 1`` before it.
            ``drop-one``: the published BEVFormer queue. Of the ``length`` keyframes before the supervised one, one
            drawn at random is left out, so that steps of 0.5 s and 1.0 s both occur. The published queue runs on into
            the scene before; ours stays in the scene, and a draw from before its start leaves nothing out.
            ``stream``: single frames, in the order of their scenes; ``length`` is not read. Memory is carried over.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    length: int = Field(default=4, ge=1)
    mode: Literal["consecutive", "drop-one", "stream"] = "consecutive"

    @property
    def history_frames(self) -> int:
        """Most keyframes in a clip before the supervised one."""
        return 0 if self.mode == "stream" else self.length - 1


@dataclass(frozen=True)
class Clip:
    """Keyframes of one scene.

    Attributes:
        scene_name: their scene.
        steps: positions in the scene, ascending; the last one is supervised.
        sample_tokens: one per step.
        carried_from: the step whose memory the batch before this one left for the clip; None without such memory.
    """

    scene_name: str
    steps: tuple[int, ...]
    sample_tokens: tuple[str, ...]
    carried_from: int | None = None

    @property
    def previous_is_adjacent(self) -> bool:
        """Whether the frame before the supervised one is its neighbour in the scene; False when there is none."""
        previous = self.steps[-2] if len(self.steps) > 1 else self.carried_from
        return previous is not None and previous == self.steps[-1] - 1

    def without_history(self) -> "Clip":
        """The supervised frame alone."""
        return Clip(self.scene_name, self.steps[-1:], self.sample_tokens[-1:])


@dataclass(frozen=True)
class ClipPosition:
    """A place in the endless sequence of clips of one rank.

    Attributes:
        epoch: 0-based.
        position: clips of this epoch already taken.
    """

    epoch: int = 0
    position: int = 0


@dataclass(frozen=True)
class PlannedBatch:
    """Clips that are trained on together, and the place that follows them."""

    clips: tuple[Clip, ...]
    after: ClipPosition


class ClipPlan:
    """The sequence of clips of one rank.

    Args:
        frames: rows in ``FRAME_SCHEMA``, any order.
        options: how clips are cut.
        seed: of the order and of the frames left out.
        rank: this process.
        ranks: processes that share the epoch.

    Raises:
        DataError: no frame has both images and labels.
    """

    def __init__(self, frames: pa.Table, options: ClipOptions, seed: int, rank: int = 0, ranks: int = 1) -> None:
        assert 0 <= rank < ranks
        frames = frames.sort_by([("scene_name", "ascending"), ("step", "ascending")])
        self._scene_names: list[str] = frames["scene_name"].to_pylist()
        self._sample_tokens: list[str] = frames["sample_token"].to_pylist()
        self._scene_numbers = np.unique(self._scene_names, return_inverse=True)[1]
        self._steps = frames["step"].to_numpy()
        has_images = frames["has_images"].to_numpy()
        self._first_rows = _first_usable_rows(self._steps, has_images)
        self._supervised_rows = np.flatnonzero(has_images & frames["has_labels"].to_numpy())
        if len(self._supervised_rows) == 0:
            scenes = ", ".join(sorted(set(self._scene_names))[:5]) or "none"
            raise DataError(
                f"nothing to train on: of {len(has_images)} frames (scenes: {scenes}) none has both images and labels. "
                "Choose a labelled split with --split, or other scenes with --scenes."
            )
        self._options, self._seed, self._rank, self._ranks = options, seed, rank, ranks

    @property
    def frames_per_epoch(self) -> int:
        """Frames supervised in an epoch, over all ranks, each once."""
        return len(self._supervised_rows)

    @property
    def repeats(self) -> int:
        """Clips that an epoch takes twice so that all ranks get equally many; less than the number of ranks."""
        return -self.frames_per_epoch % self._ranks

    @property
    def clips_per_epoch(self) -> int:
        """Clips of this rank in an epoch."""
        return (self.frames_per_epoch + self.repeats) // self._ranks

    def batches(self, start: ClipPosition, batch_size: int) -> Iterator[PlannedBatch]:
        """Endless batches from a place on. A batch never spans two epochs, so the last of an epoch may be smaller."""
        epoch, position = start.epoch, start.position
        while True:
            clips = self.epoch(epoch)
            while position < len(clips):
                chosen = clips[position : position + batch_size]
                position += len(chosen)
                yield PlannedBatch(tuple(chosen), ClipPosition(epoch, position))
            epoch, position = epoch + 1, 0

    def streams(self, start: ClipPosition, batch_size: int) -> Iterator[PlannedBatch]:
        """As ``batches``, of scenes side by side: each frame follows the one in the same row of the batch before.

        A row that ends its scene takes the next one. An epoch ends when there is none left for some row, so the last
        frames of the others are left out, of other scenes in every epoch; no batch is smaller than the others.
        """
        epoch, position = start.epoch, start.position
        while True:
            ticks = self._side_by_side(epoch, batch_size)
            width = len(ticks[0])
            for tick in ticks[position // width :]:
                position += width
                yield PlannedBatch(tuple(tick), ClipPosition(epoch, position))
            epoch, position = epoch + 1, 0

    def epoch(self, epoch: int) -> list[Clip]:
        """Clips of one epoch for this rank, in order."""
        draw = self._draw(epoch)
        order = draw.permutation(self._supervised_rows)
        left_out = draw.integers(self._options.length, size=len(self._steps))
        everyone = np.resize(order, len(order) + self.repeats)  # repeats the first few
        return [self._clip(int(row), int(left_out[row])) for row in everyone[self._rank :: self._ranks]]

    def _draw(self, epoch: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self._seed, epoch])))

    def _side_by_side(self, epoch: int, batch_size: int) -> list[list[Clip]]:
        """The batches of an epoch of streams for this rank."""
        starts = np.flatnonzero(np.diff(self._scene_numbers[self._supervised_rows], prepend=-1))
        scenes = np.split(self._supervised_rows, starts[1:])
        order = self._draw(epoch).permutation(len(scenes))
        mine = np.resize(order, len(order) + -len(order) % self._ranks)[self._rank :: self._ranks]
        waiting = deque(self._stream(scenes[scene]) for scene in mine)
        rows: list[deque[Clip]] = [deque() for _ in range(min(batch_size, len(waiting)))]
        ticks: list[list[Clip]] = []
        while True:
            for row in rows:
                if not row and waiting:
                    row.extend(waiting.popleft())
            if not all(rows):
                return ticks
            ticks.append([row.popleft() for row in rows])

    def _stream(self, rows: NDArray[np.int64]) -> list[Clip]:
        """A scene's supervised frames, each with the one before as its memory."""
        steps = [int(self._steps[row]) for row in rows]
        names = (self._scene_names[rows[0]], [self._sample_tokens[row] for row in rows])
        before = [None, *steps[:-1]]
        return [
            Clip(names[0], (step,), (token,), carried_from=previous)
            for step, token, previous in zip(steps, names[1], before, strict=True)
        ]

    def _clip(self, last: int, left_out: int) -> Clip:
        """The clip that ends at row ``last``; ``left_out`` counts back from its previous frame, in drop-one mode."""
        reach = self._options.history_frames + (1 if self._options.mode == "drop-one" else 0)
        rows = list(range(max(int(self._first_rows[last]), last - reach), last + 1))
        if self._options.mode == "drop-one":
            rows = [row for row in rows if row != last - 1 - left_out]
        return Clip(
            scene_name=self._scene_names[last],
            steps=tuple(int(self._steps[row]) for row in rows),
            sample_tokens=tuple(self._sample_tokens[row] for row in rows),
        )


def _first_usable_rows(steps: NDArray[np.int32], has_images: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each row, the first row of its scene from which every frame up to it has images."""
    rows = np.arange(len(steps))
    starts = np.where(has_images, np.where(steps == 0, rows, 0), rows + 1)
    return np.maximum.accumulate(starts) if len(rows) else starts
