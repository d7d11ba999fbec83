"""The training loop: take a batch, step, log, save.

Ctrl-C and errors that the user can mend end a run with its last whole step saved; after a kill or a defect, the last
periodic checkpoint stands, for a step may have been half done. The loop prints nothing: ``on_step`` is told of every
step, and the caller draws.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch

from detectors.bevformer import BEVFormer
from detectors.weights import save_weights
from schemas.errors import CheckpointError, UserError
from train.batches import BatchStream, TrainingBatch
from train.beginning import begin
from train.checkpoint import Progress, TrainingState, load_checkpoint, process_part, save_checkpoint
from train.clips import ClipPlan
from train.ema import averaged
from train.inheritance import hold_object_queries
from train.interruption import StopRequest, stop_on_signal
from train.learner import Learner
from train.metrics_log import MetricsLog, StepReport
from train.optimizer import build_optimizer, learning_rate, set_learning_rate
from train.periodic_evaluation import PeriodicEvaluation
from train.run import TrainingRun, check_run, clip_plan, distillers_of, planned_batches
from train.run_folder import RunFolder, disk_errors, open_run_folder
from train.step import train_step
from train.stream import TargetWindow


@dataclass(frozen=True)
class TrainOutcome:
    """How a run ended.

    Attributes:
        step: steps done in all.
        finished: the last step of the options is done.
        interrupted: Ctrl-C or SIGTERM ended it early; the same command goes on.
        weights: file with the detector's weights as they are now.
        best: file with the weights that scored best; None where none were scored.
    """

    step: int
    finished: bool
    interrupted: bool
    weights: Path
    best: Path | None = None


def train(run: TrainingRun, on_step: Callable[[StepReport], None], max_steps: int | None = None) -> TrainOutcome:
    """Train until the last step, ``max_steps``, Ctrl-C or an error, going on from the folder's checkpoint if any.

    Seeds torch's global random stream with ``options.seed``: dropout draws from no other.

    Args:
        run: what to train, on what.
        on_step: called after every step.
        max_steps: stop when this many steps are done in all; the schedule stays that of ``options.steps``.

    Raises:
        UserError: input that cannot work, a folder in use, missing or damaged data, a loss that is not finite. Once
            steps have been done the state after the last whole one is saved first, and the message names the step.
    """
    check_run(run)
    torch.manual_seed(run.options.seed)
    learner = Learner(run.detector, distillers_of(run), run.options.precision).to(run.device)
    if learner.distillers.holds_queries:
        hold_object_queries(run.detector)
    # Convolutions are 10-20 % faster so, on CPUs too; torch's annotations know no memory_format.
    learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plan = clip_plan(run)
    run.processes.own_random_stream(run.options.seed)
    with open_run_folder(run.out, run.processes) as folder:
        return _Loop(run, learner, plan, folder).go(on_step, max_steps)


def _new_state(run: TrainingRun, learner: Learner) -> TrainingState:
    """What training changes, as it is before the first step; the detector has its initial weights."""
    options = run.options
    return TrainingState(
        learner=learner,
        optimizer=build_optimizer(learner.detector, learner.distillers, options.optimizer),
        scaler=torch.amp.GradScaler(run.device.type, enabled=options.precision == "float16"),
        device=run.device,
        average=None if options.ema_decay is None else averaged(learner.detector, options.ema_decay),
        processes=run.processes,
        averaging=run.processes.averaging(learner),
    )


class _Loop:
    """One process's training from its checkpoint on."""

    def __init__(self, run: TrainingRun, learner: Learner, plan: ClipPlan, folder: RunFolder) -> None:
        self.run, self.options, self.plan, self.folder = run, run.options, plan, folder
        self.weighting = learner.distillers.weighting
        self.processes = run.processes
        self.teacher_frames = learner.distillers.teacher_frames
        self.features = learner.distillers.requires
        resumed = self._resumes()
        if not resumed:
            begin(run, folder)
        self.identity = run.identity()
        self.state = _new_state(run, learner)
        self.progress = load_checkpoint(folder.checkpoint, self.state, self.identity) if resumed else Progress()
        self.saved_step = self.step
        if run.recipe_yaml is not None:
            recipe = run.recipe_yaml
            folder.write(folder.recipe, lambda path: path.write_text(recipe))

    @property
    def result(self) -> BEVFormer:
        """The detector with the weights that this run stands for: the averaged ones where an average is kept."""
        if self.state.average is None:
            return self.run.detector
        averaged_detector = self.state.average.module
        assert isinstance(averaged_detector, BEVFormer)
        return averaged_detector

    @property
    def step(self) -> int:
        """Steps done."""
        return self.progress.step

    def go(self, on_step: Callable[[StepReport], None], max_steps: int | None) -> TrainOutcome:
        last = self.options.steps if max_steps is None else min(max_steps, self.options.steps)
        self.state.learner.train()
        with (
            self._open_log() as log,
            self._open_evaluation() as evaluation,
            stop_on_signal() as stop,
            self._saving_what_was_learnt(),
            self._batches() as batches,
        ):
            self._score_if_due(evaluation, log, stop)  # an earlier process may have ended before it did
            while self.step < last and not self.processes.any(stop.requested):
                report = self._next_step(batches)
                if log is not None:
                    (log.pass_over if self.step % self.options.log_every else log.write)(report)
                if self.step % self.options.checkpoint_every == 0:
                    self._save()
                on_step(report)
                self._score_if_due(evaluation, log, stop)
        self.processes.first_alone(self._write_weights)
        if self.state.average is not None:
            self.run.detector.load_state_dict(self.result.state_dict())
        return TrainOutcome(
            step=self.step,
            finished=self.step >= self.options.steps,
            interrupted=self.step < last,
            weights=self.folder.weights,
            best=self.folder.best if self.folder.best_score.exists() else None,
        )

    def _next_step(self, batches: Iterator[TrainingBatch]) -> StepReport:
        options, state = self.options, self.state
        batches_per_epoch = -(-self.plan.clips_per_epoch // options.batch_size)
        steps_per_epoch = Fraction(batches_per_epoch, options.accumulate)
        lr = learning_rate(self.step, options.steps, steps_per_epoch, options.optimizer)
        set_learning_rate(state.optimizer, lr)
        done = train_step(state, batches, self.progress.memory, options.accumulate, options.optimizer.max_grad_norm)
        if state.average is not None:
            state.average.update_parameters(self.run.detector)
        self.progress = Progress(self.step + 1, done.after, done.memory)
        return StepReport(
            step=self.step,
            epoch=done.after.epoch,
            lr=lr,
            loss=sum(done.terms.values()),
            terms=done.terms,
            grad_norm=done.grad_norm,
            seconds=done.seconds,
            factors=self.weighting.factors(),
            lr_by_group={group["name"]: group["lr"] for group in state.optimizer.param_groups},
            loss_scale=state.scaler.get_scale() if state.scaler.is_enabled() else None,
            samples=done.samples,
        )

    def _resumes(self) -> bool:
        """Whether there is a checkpoint to go on from; all processes must see it, or none."""
        seen = [there for (there,) in self.processes.by_rank([float(self.folder.checkpoint.exists())])]
        if any(seen) and not all(seen):
            blind = ", ".join(str(rank) for rank, there in enumerate(seen) if not there)
            raise CheckpointError(
                f"{self.folder.checkpoint} is there for some of the processes, but not for {blind}: all read it. Give "
                "OUT=... on a file system that all machines share."
            )
        return all(seen)

    def _open_log(self) -> AbstractContextManager[MetricsLog | None]:
        if not self.processes.is_first:
            return nullcontext()
        return MetricsLog(self.folder.metrics, self.step, self.folder.tensorboard)

    def _open_evaluation(self) -> PeriodicEvaluation:
        evaluate = self.run.evaluate if self.processes.is_first else None
        return PeriodicEvaluation(evaluate, self.options, self.folder, self.step)

    def _score_if_due(self, evaluation: PeriodicEvaluation, log: MetricsLog | None, stop: StopRequest) -> None:
        if self.options.evaluate_every == 0 or not self.processes.any(evaluation.is_due(self.step)):
            return

        def score() -> None:
            assert log is not None, "the first process has one"
            evaluation.score(self.result, self.step, log)

        if not self.processes.any(stop.requested):
            self._save()  # scoring may take long, and a second Ctrl-C ends it at once
            self.processes.first_alone(score)

    @contextmanager
    def _batches(self) -> Iterator[BatchStream]:
        """The batches from here on, with the threads that prepare them."""
        run, stream = self.run, self.options.stream
        with ExitStack() as open_streams:
            source = run.targets(TargetWindow(self.features, self.teacher_frames, self.options.batch_size))
            teacher = None if source is None else open_streams.enter_context(source)
            planned = planned_batches(self.plan, self.options, self.step, self.progress.position)
            grid = run.detector.config.grid
            yield open_streams.enter_context(BatchStream(planned, run.load_frame, teacher, grid, stream, run.device))

    @contextmanager
    def _saving_what_was_learnt(self) -> Iterator[None]:
        """Save when the block ends, also by an error that the user can mend, which is then told with its step."""
        try:
            yield
        except UserError as error:
            if self.processes.saves_after(error):
                self._save()
            raise type(error)(f"training stopped at step {self.step + 1}: {error}{self._where_saved()}") from error
        self._save()

    def _save(self) -> None:
        if self.step > self.saved_step:
            identity, progress = self.identity, self.progress
            others = self.processes.gathered(process_part(self.state, progress))[1:]
            self.folder.write(
                self.folder.checkpoint, lambda path: save_checkpoint(path, self.state, progress, identity, others)
            )
            self.saved_step = self.step

    def _write_weights(self) -> None:
        with disk_errors("writing the weights", self.folder.weights):
            save_weights(self.result, self.folder.weights)

    def _where_saved(self) -> str:
        if self.saved_step == 0:
            return ""
        saved = f"The state after step {self.saved_step} is in {self.folder.checkpoint}"
        return f" {saved}; the same command goes on from it."
