"""What a run's student is before its first step: files of weights first, then what it inherits from its teacher."""

from train.initialisation import initialise
from train.run import TrainingRun, inheritance_of
from train.run_folder import RunFolder


def begin(run: TrainingRun, folder: RunFolder) -> None:
    """Fill a new run's detector, in place, and tell in the run's folder from what.

    Raises:
        CheckpointError: a file of weights is absent, damaged or not for this detector.
        CacheError: the cache holds no parameters to inherit.
        RecipeError: they do not fit the student.
    """
    started, given = initialise(run.detector, run.options.init), inheritance_of(run)
    if started is not None:
        files = started.as_json()
        folder.write(folder.initialised, lambda path: path.write_text(files))
        if run.announce is not None:
            run.announce(str(started))
    if given is not None:
        inherited = given.as_json()
        folder.write(folder.inherited, lambda path: path.write_text(inherited))
