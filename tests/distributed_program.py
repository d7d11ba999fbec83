"""One of two processes that train together, as a test starts them; what it finds goes to a file.

``python distributed_program.py FOLDER``, with the variables that torchrun sets. The folder holds a tiny world and a
cache; ``gradients-of-two.pt`` and ``found-RANK.json`` are added.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from train_world import CPU, SCENES, tiny_config, tiny_detector, tiny_tables

from cache.reading import Cache, open_cache
from detectors.bevformer import BEVFormer
from detectors.config import SmallBackboneConfig
from detectors.outputs import DetectorFeatures
from scenes.scene_tables import SceneTables
from schemas.boxes import Boxes, empty_boxes
from schemas.errors import DataError, UserError
from schemas.frames import CameraInputs
from schemas.manifest import weights_sha256
from train.batches import BatchStream, TrainingBatch
from train.clips import Clip, ClipOptions, ClipPosition, PlannedBatch
from train.distiller_catalogue import DistillationOptions
from train.distillers.fd3d import FD3DOptions
from train.distillers.structured_kd import StructuredKDOptions
from train.distillers.tempdistiller import TempDistillerOptions
from train.distributed import ALONE, Processes, joined_processes
from train.learner import Learner
from train.loop import train
from train.loss_weighting import WeightingOptions
from train.metrics_log import StepReport
from train.options import TrainOptions
from train.query_branch import QueryBranchOptions
from train.run import TrainingRun, distillers_of
from train.stream import StreamOptions, TargetWindow, TeacherStream

BATCH_NORMED = tiny_config().model_copy(
    update={"backbone": SmallBackboneConfig(channels=(8, 8, 8, 16), blocks=(1, 1, 1), norm="batch")}
)
BRANCH = QueryBranchOptions(queries=12, layers=2, heads=2, ffn_channels=16, dropout=0.0)
FD3D = FD3DOptions(mask_ratio=0.0, min_score=0.0, branch=BRANCH)
CASES: Mapping[str, DistillationOptions] = {
    "detector": DistillationOptions(),
    "feature": DistillationOptions(names=("feature",)),
    "fd3d-heatmap": DistillationOptions(names=("fd3d-heatmap",)),
    "fd3d": DistillationOptions(names=("fd3d",), fd3d=FD3D),
    "fd3d learned": DistillationOptions(
        names=("fd3d",), fd3d=FD3D.model_copy(update={"query_source": "learned", "ground_truth_steps": 0})
    ),
    "structured-kd": DistillationOptions(
        names=("structured-kd",), structured_kd=StructuredKDOptions(decoder="nearest", response_weight=1.0)
    ),
    "tempdistiller": DistillationOptions(
        names=("tempdistiller",), tempdistiller=TempDistillerOptions(mask_ratio=0.0, relation_weight=2.0)
    ),
    "temporal-attention": DistillationOptions(names=("temporal-attention",)),
    "unidistill": DistillationOptions(names=("unidistill",)),
    "matched": DistillationOptions(
        names=("feature", "unidistill"), weighting=WeightingOptions(rule="matched", steps=3, share=0.7)
    ),
}
"""What has the gradient of one process in two: all but what draws at random, and correlations over a batch."""

CLIPS = ((SCENES[0], (0, 1, 2)), (SCENES[1], (1, 2)), (SCENES[2], (0,)), (SCENES[0], (0,)))
"""The last two are the second process's: without history, and their annotations are taken away."""

OPTIONS = TrainOptions(
    steps=5,
    batch_size=1,
    clips=ClipOptions(mode="stream"),
    distillation=DistillationOptions(
        names=("tempdistiller", "pkd"), weighting=WeightingOptions(rule="matched", steps=4, share=0.3)
    ),
    accumulate=2,
    ema_decay=0.9,
    log_every=1,
    checkpoint_every=2,
)


def gradients(case: str, tables: SceneTables, cache: Cache, processes: Processes) -> dict[str, Tensor]:
    """Gradients of a case by parameter, of the batch of all processes; parameters that nothing reached are left out."""
    run = TrainingRun(
        tiny_detector(tiny_config(dropout=0.0)),
        tables,
        SCENES,
        cache,
        TrainOptions(steps=1, distillation=CASES[case]),
        Path("unused"),
        CPU,
    )
    torch.manual_seed(1)
    learner = Learner(run.detector, distillers_of(run), "float32")
    learner.train()
    called = processes.averaging(learner) or learner
    terms, _ = called(_batch(run, learner, processes), None)
    torch.stack(list(terms.values())).sum().backward()
    return {name: values.grad for name, values in learner.named_parameters() if values.grad is not None}


def _batch(run: TrainingRun, learner: Learner, processes: Processes) -> TrainingBatch:
    """All clips, or this process's half of them."""
    share = len(CLIPS) // processes.count
    mine = CLIPS[processes.rank * share : (processes.rank + 1) * share]
    tokens = {scene: run.tables.sample_tokens(scene) for scene in SCENES}
    clips = tuple(Clip(scene, steps, tuple(tokens[scene][step] for step in steps)) for scene, steps in mine)
    planned: Iterator[PlannedBatch] = (PlannedBatch(clips, ClipPosition(0, number)) for number in count())
    assert run.cache is not None
    window = TargetWindow(learner.distillers.requires or ("bev",), learner.distillers.teacher_frames, len(clips))
    grid, options = run.detector.config.grid, StreamOptions(look_ahead=1)
    with (
        TeacherStream(run.cache, window, options, CPU) as teacher,
        BatchStream(planned, run.load_frame, teacher, grid, options, CPU) as batches,
    ):
        batch = next(batches)
    annotated = len(CLIPS) // 2 - processes.rank * share
    return replace(
        batch,
        boxes=tuple(boxes if row < annotated else empty_boxes() for row, boxes in enumerate(batch.boxes)),
        teacher=batch.teacher if learner.distillers.requires else None,
    )


@dataclass(frozen=True, eq=False)
class OddRun(TrainingRun):
    """A run whose frames are spoilt from some step on.

    Attributes:
        good_frames: how many are loaded first.
        spoil: what becomes of those after them.
        loaded: counts them.
    """

    good_frames: int = 10**9
    spoil: Callable[[CameraInputs], CameraInputs] = lambda inputs: inputs
    loaded: Iterator[int] = field(default_factory=count)

    def load_frame(self, sample_token: str, occasion: str) -> CameraInputs:
        """As any run's, until ``good_frames`` are loaded."""
        inputs = super().load_frame(sample_token, occasion)
        return inputs if next(self.loaded) < self.good_frames else self.spoil(inputs)


def _unreadable(inputs: CameraInputs) -> CameraInputs:
    raise DataError(f"the image of {inputs.frame.sample_token} is torn")


def _not_finite(inputs: CameraInputs) -> CameraInputs:
    return replace(inputs, images=inputs.images * float("nan"))


class Checks:
    """What one process does together with the other."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder, self.processes = folder, processes
        self.tables, self.cache = tiny_tables(folder / "world"), open_cache(folder / "cache")

    def all_gradients(self) -> None:
        found = {case: gradients(case, self.tables, self.cache, self.processes) for case in CASES}
        if self.processes.is_first:
            torch.save(found, self.folder / "gradients-of-two.pt")

    def run(self, out: str, **changes: Any) -> OddRun:
        fields = {
            "detector": tiny_detector(BATCH_NORMED),
            "tables": self.tables,
            "scene_names": SCENES,
            "cache": self.cache,
            "options": OPTIONS,
            "out": self.folder / out,
            "device": CPU,
            "processes": self.processes,
        }
        return OddRun(**(fields | changes))

    def resumed(self) -> dict[str, Any]:
        """A run in one piece, and the same with a stop in its middle: the weights of this process."""
        whole, halves = self.run("whole"), self.run("halves")
        train(whole, ignore)
        train(halves, ignore, max_steps=3)
        random = torch.get_rng_state()
        halves = self.run("halves")
        train(halves, ignore)
        return {
            "whole": _hash(whole),
            "halves": _hash(halves),
            "statistics": [_hash(run, buffers=True) for run in (whole, halves)],
            "random": int(random.long().sum()),
        }

    def interrupted(self) -> tuple[int, bool]:
        """The second process alone is asked to stop."""

        def on_step(report: StepReport) -> None:
            if report.step == 2 and not self.processes.is_first:
                os.kill(os.getpid(), signal.SIGTERM)

        outcome = train(self.run("interrupted"), on_step)
        return outcome.step, outcome.interrupted

    def told(self, out: str, **changes: Any) -> str:
        """What a run is refused or ended by."""
        try:
            train(self.run(out, **changes), ignore)
        except UserError as error:
            return f"{type(error).__name__}: {error}"
        return "nothing"

    def first_things_first(self) -> list[Any]:
        """The first makes a file, the other finds it; both have the numbers of both."""
        made = self.folder / "made"

        def make_or_find() -> bool:
            there = made.exists()
            made.touch()
            return there

        found = self.processes.first_then_all(make_or_find)
        gathered = self.processes.gathered({"rank": self.processes.rank})
        anywhere = self.processes.any(not self.processes.is_first)
        return [found, gathered, anywhere, self.processes.by_rank([float(self.processes.rank), 0.5])]

    def alone(self) -> None:
        """The second process fails where the first does not hear of it."""
        run = self.run("alone", detector=_OddDetector(tiny_config()))
        run.detector.good_batches = 10**9 if self.processes.is_first else 2
        train(run, ignore)


class _OddDetector(BEVFormer):
    """A detector that cannot be taught any more after some batches."""

    good_batches = 0

    def losses(self, features: DetectorFeatures, annotations: Sequence[Boxes]) -> dict[str, Tensor]:
        self.good_batches -= 1
        if self.good_batches < 0:
            raise DataError("an annotation has no box code")
        return super().losses(features, annotations)


def ignore(report: StepReport) -> None:
    """Draw nothing."""


def _hash(run: TrainingRun, *, buffers: bool = False) -> str:
    """Of a trained detector's parameters, or of the running statistics of its batch norms."""
    named = run.detector.named_buffers() if buffers else run.detector.named_parameters()
    return weights_sha256((name, values.detach().numpy()) for name, values in named)


def main(folder: Path) -> None:
    """All checks, the one that ends the other process last."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    second = os.environ["RANK"] == "1"
    try:
        with joined_processes(os.environ, "cpu") as processes:
            checks = Checks(folder, processes)
            checks.all_gradients()
            found["first"] = checks.first_things_first()
            found["resumed"] = checks.resumed()
            found["interrupted"] = checks.interrupted()
            spoilt = {"good_frames": 7 if second else 10**9}
            found["unreadable"] = checks.told("unreadable", spoil=_unreadable, **spoilt)
            found["not finite"] = checks.told("not-finite", spoil=_not_finite, **spoilt)
            found["one"] = checks.told("halves", processes=ALONE) if processes.is_first else ""
            found["where"] = checks.told("whole" if processes.is_first else "elsewhere")
            checks.alone()
    except UserError as error:
        found["alone"] = f"{type(error).__name__}: {error}"
    (folder / f"found-{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
