"""Run the training loop with a progress bar; both the student and the demo's teacher are trained so."""

from dataclasses import replace

import torch

from detectors.bevformer import BEVFormer
from detectors.catalogue import build
from detectors.config import BEVFormerConfig
from pipeline.console import Tracker, console
from pipeline.periodic_evaluation import with_evaluation
from pipeline.recipe import Recipe, as_yaml
from pipeline.shipped_weights import check_start
from train.loop import TrainOutcome, train
from train.metrics_log import StepReport
from train.run import TrainingRun


def seeded_detector(config: BEVFormerConfig, seed: int) -> BEVFormer:
    """A detector with fresh weights that depend on the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(config)


def train_with_progress(title: str, recipe: Recipe, run: TrainingRun, max_steps: int | None) -> TrainOutcome:
    """Train, and say how it goes; scores along the way are made where the run's options ask for them.

    Args:
        title: what the progress bar calls it.
        recipe: written beside the run's output.
        run: what to train, on what.
        max_steps: stop when this many steps are done in all.

    Raises:
        UserError: as ``train.loop.train``.
        KeyboardInterrupt: Ctrl-C ended the run after a whole step; its state is saved.
    """
    check_start(run.options.init.weights, recipe.world)
    run = with_evaluation(run)
    run = replace(run, recipe_yaml=as_yaml(recipe), announce=lambda text: console.print(text, soft_wrap=True))
    total = run.options.steps if max_steps is None else min(max_steps, run.options.steps)
    title = title if run.processes.count == 1 else f"{title} in {run.processes.count} processes"
    with Tracker(title, total, "steps") as tracker:

        def on_step(report: StepReport) -> None:
            tracker.reach(report.step, _note(report))

        outcome = train(run, on_step, max_steps)
        tracker.reach(outcome.step)  # a run that was finished before has made no step
    if outcome.interrupted:
        raise KeyboardInterrupt
    console.print(f"{title}: {outcome.step} steps done in {run.out}", soft_wrap=True)
    return outcome


def _note(report: StepReport) -> str:
    waited = report.seconds["data"] / max(sum(report.seconds.values()), 1e-9)
    sums: dict[str, float] = {}
    for name, value in report.terms.items():
        source = name.partition("/")[0]
        sums[source] = sums.get(source, 0.0) + value
    parts = ", ".join(f"{source} {value:.2f}" for source, value in sums.items())
    return f"loss {report.loss:.2f} ({parts}), {waited:.0%} waiting for data"
