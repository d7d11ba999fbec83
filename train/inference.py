"""Run a detector over whole scenes, frame by frame with its memory, as it is scored and as it would drive."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from detectors.bevformer import BEVFormer
from detectors.inputs import batch_of
from detectors.outputs import TemporalState
from scenes.frame_stream import stream_frames
from scenes.scene_tables import SceneTables
from schemas.boxes import Boxes
from schemas.frames import CameraInputs
from train.dataset_classes import require_dataset_classes
from train.history import evaluating, rearranged
from train.learner import autocast
from train.options import Precision


@dataclass(frozen=True)
class InferenceOptions:
    """How detections are made.

    Attributes:
        device: where to compute.
        precision: of the detector's arithmetic.
        scenes_per_batch: scenes that run side by side. The published protocol is 1; more are faster for small
            detectors and change results by rounding only.
        decode_threads: threads that decode images.
        look_ahead: batches of images in preparation.
        history: whether a frame is told of the one before; without, each stands for itself.
    """

    device: torch.device
    precision: Precision = "float32"
    scenes_per_batch: int = 1
    decode_threads: int = 2
    look_ahead: int = 2
    history: bool = True


@dataclass(frozen=True)
class Tick:
    """Frames that run side by side.

    Attributes:
        lanes: which of the parallel sequences each frame belongs to, ascending.
        sample_tokens: one per lane.
    """

    lanes: tuple[int, ...]
    sample_tokens: tuple[str, ...]


def detect(
    detector: BEVFormer,
    tables: SceneTables,
    scene_names: Sequence[str],
    options: InferenceOptions,
    on_frame: Callable[[str], None],
) -> dict[str, Boxes]:
    """Detect objects in every frame of some scenes.

    Args:
        detector: on ``options.device``; left in the mode it was in.
        tables: where the frames come from.
        scene_names: scenes, each streamed from its first frame on.
        options: speed and precision.
        on_frame: called with every sample token that is done.

    Returns:
        Scored boxes by sample token, scene by scene in time order.

    Raises:
        DataError: an image is missing, damaged or of another size; it is named.
        RecipeError: the detector's classes are not the data's.
    """
    require_dataset_classes(detector.config.class_names)
    scenes = [tables.sample_tokens(name) for name in scene_names]
    found: dict[str, Boxes] = {}
    state: TemporalState | None = None
    lanes: tuple[int, ...] = ()
    with torch.no_grad(), evaluating(detector), autocast(options.device, options.precision):
        for tick, inputs in _decoded(side_by_side(scenes, options.scenes_per_batch), detector, tables, options):
            if state is not None and tick.lanes != lanes:
                state = rearranged(state, [lanes.index(lane) for lane in tick.lanes])
            lanes = tick.lanes
            features, left = detector.features(batch_of(inputs).to(options.device), state)
            state = left if options.history else None
            for token, boxes in zip(tick.sample_tokens, detector.decode(features), strict=True):
                found[token] = boxes
                on_frame(token)
    return {token: found[token] for tokens in scenes for token in tokens}


def side_by_side(scenes: Sequence[Sequence[str]], width: int) -> Iterator[Tick]:
    """Spread scenes over parallel lanes: a lane that ends its scene takes the next one not yet begun.

    Args:
        scenes: sample tokens of each scene in time order.
        width: most lanes.
    """
    waiting = deque(scenes)
    lanes: dict[int, deque[str]] = {}
    while waiting or lanes:
        for lane in range(width):
            if lane not in lanes and waiting:
                lanes[lane] = deque(waiting.popleft())
        order = sorted(lanes)
        yield Tick(tuple(order), tuple(lanes[lane].popleft() for lane in order))
        lanes = {lane: tokens for lane, tokens in lanes.items() if tokens}


def _decoded(
    ticks: Iterable[Tick], detector: BEVFormer, tables: SceneTables, options: InferenceOptions
) -> Iterator[tuple[Tick, list[CameraInputs]]]:
    """Each tick with its decoded frames, decoded a few ticks ahead."""
    ticks = tuple(ticks)
    frames = (tables.frame(token) for tick in ticks for token in tick.sample_tokens)
    ahead = (1 + options.look_ahead) * options.scenes_per_batch
    inputs = stream_frames(frames, tables.data_root, detector.config.preprocessing, options.decode_threads, ahead)
    for tick in ticks:
        yield tick, list(islice(inputs, len(tick.sample_tokens)))
