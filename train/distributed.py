"""Processes that train one student together, as torchrun starts them: which of them this is, and how they agree.

Every process has a copy of the model and clips of its own. Gradients are averaged over the processes in every step, so
the copies stay equal; what one step computes is the step of all their clips in one batch, as far as losses are means
over samples or divided by ``mean_over_ranks``. The first process alone writes, prints and scores.

No process can go on without the others, so they stop together: whoever is asked to stop, or meets an error that it can
tell the others of (``together``), ends the run of all at the same step, with its state saved. After an error in the
middle of a step, or a kill, the others lose contact: they end at once, and the last checkpoint stands.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from schemas.errors import NotFiniteError, RecipeError, UserError

PATIENCE = timedelta(minutes=30)
"""How long a process waits for one that is about to do the same as itself. One that died is missed at once."""
LONG_PATIENCE = timedelta(days=1)
"""How long it waits while the first works alone: writes the synthetic world, makes a cache, scores."""

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each process in its environment."""

Result = TypeVar("Result")


class StoppedTogetherError(UserError):
    """An error of one process, raised in all of them at the same point."""


@dataclass(frozen=True, eq=False)
class Processes:
    """A process among those that train together; by default the only one.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
        local_rank: its number on this machine.
        patient: all of them, to wait for each other for as long as ``LONG_PATIENCE``.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    patient: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes, prints and scores."""
        return self.rank == 0

    def any(self, here: bool) -> bool:
        """Whether it is so in any process. All must ask."""
        if self.count == 1:
            return here
        flag = torch.tensor(int(here))
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def together(self, work: Callable[[], Result]) -> Result:
        """What the work gives in this process, if it succeeds in all of them. All must call it.

        Raises:
            StoppedTogetherError: it failed in some process by a ``UserError``, which is told. Where there is but one
                process, its own error.
        """
        if self.count == 1:
            return work()
        return self._together(work, None)

    def first_then_all(self, work: Callable[[], Result]) -> Result:
        """What the work gives in this process; the others begin when the first is done, and find made what it makes.

        Raises:
            StoppedTogetherError: it failed in the first by a ``UserError``, which is told.
        """
        if self.count == 1:
            return work()
        if self.is_first:
            return self._together(work, self.patient)
        self._together(lambda: None, self.patient)
        return work()

    def first_alone(self, work: Callable[[], object]) -> None:
        """Have the first do something while the others wait.

        Raises:
            StoppedTogetherError: it failed by a ``UserError``, which is told.
        """
        self.first_then_all(work if self.is_first else lambda: None)

    def by_rank(self, numbers: Sequence[float]) -> list[list[float]]:
        """Every process's numbers, equally many in each. All must ask."""
        if self.count == 1:
            return [list(numbers)]
        own = torch.tensor(numbers, dtype=torch.float64)
        everyone = [torch.empty_like(own) for _ in range(self.count)]
        dist.all_gather(everyone, own)
        return [theirs.tolist() for theirs in everyone]

    def gathered(self, value: Result) -> list[Result]:
        """Every process's value, in the first; nothing in the others. All must ask; tensors must be on the CPU."""
        if self.count == 1:
            return [value]
        everyone: list[Result] | None = [value] * self.count if self.is_first else None
        dist.gather_object(value, everyone)
        return everyone or []

    def averaging(self, learner: nn.Module) -> nn.Module | None:
        """To be called in the learner's place: its gradients are averaged over the processes as they are computed.

        Parameters that no loss reaches in a process (a frame without objects, held queries) are looked for in every
        step: they count as zero there, and one that none of the processes reached keeps no gradient, as alone.
        """
        return None if self.count == 1 else DistributedDataParallel(_Searched(learner), find_unused_parameters=True)

    def saves_after(self, error: UserError) -> bool:
        """Whether all processes met this error at the same point of a step, and so can save the state before it."""
        return self.count == 1 or isinstance(error, StoppedTogetherError | NotFiniteError)

    def own_random_stream(self, seed: int) -> None:
        """From here on, draw what no other process draws; the first goes on with the stream it has."""
        if not self.is_first:
            torch.manual_seed(int(np.random.SeedSequence([seed, self.rank]).generate_state(1, np.uint64)[0]))

    def _together(self, work: Callable[[], Result], group: dist.ProcessGroup | None) -> Result:
        failure: UserError | None = None
        try:
            result = work()
        except UserError as error:
            failure = error
        failed = torch.tensor(int(failure is not None))
        dist.all_reduce(failed, dist.ReduceOp.MAX, group=group)
        if not failed:
            return result
        told: list[str | None] = [None] * self.count
        dist.all_gather_object(told, None if failure is None else str(failure), group=group)
        rank, message = next((rank, message) for rank, message in enumerate(told) if message is not None)
        raise StoppedTogetherError(f"process {rank} of {self.count}: {message}") from failure


class _Searched(nn.Module):
    """A learner with one parameter that is never reached.

    Where all are reached in the first step, torch advises to do without the search, and later steps would fail.
    """

    def __init__(self, learner: nn.Module) -> None:
        super().__init__()
        self.learner = learner
        self.never_reached = nn.Parameter(torch.zeros(()))

    def forward(self, batch: object, left: object) -> object:
        """The learner's."""
        return self.learner(batch, left)


ALONE = Processes()
"""One process that trains for itself."""


def gradients_kept(averaging: nn.Module | None) -> AbstractContextManager[None]:
    """Gradients of forward and backward passes within the block wait here, for a later pass to average with its own."""
    return averaging.no_sync() if isinstance(averaging, DistributedDataParallel) else nullcontext()


@contextmanager
def joined_processes(environment: Mapping[str, str], device: str) -> Iterator[Processes]:
    """Meet the other processes that torchrun started, and part from them at the end; alone without torchrun.

    An error of this process alone names it. An error or interruption of all is told by the first; the others exit.

    Args:
        environment: holds ``VARIABLES`` under torchrun.
        device: ``cpu`` or ``cuda``, where tensors will be averaged.

    Raises:
        RecipeError: some of the variables are missing or are no numbers.
        UserError: the others cannot be reached, or do not answer any more.
    """
    processes = _from_environment(environment)
    if processes.count == 1:
        yield processes
        return
    # Two backends: what is agreed on between processes stays on the CPU.
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") and torch.cuda.is_available() else "gloo"
    with _contact():
        dist.init_process_group(backend, timeout=PATIENCE)
        patient = dist.new_group(backend="gloo", timeout=LONG_PATIENCE)
    try:
        with _contact():
            yield Processes(processes.rank, processes.count, processes.local_rank, patient)
    except (StoppedTogetherError, KeyboardInterrupt) as error:
        if processes.is_first:
            raise
        raise SystemExit(1) from error
    except NotFiniteError as error:
        raise NotFiniteError(f"process {processes.rank} of {processes.count}: {error}") from error
    except UserError as error:
        raise type(error)(f"process {processes.rank} of {processes.count}: {error}") from error
    dist.destroy_process_group()


def _from_environment(environment: Mapping[str, str]) -> Processes:
    given = {name: environment[name] for name in VARIABLES if name in environment}
    if not {"RANK", "WORLD_SIZE"} <= given.keys():
        return Processes()
    missing = [name for name in VARIABLES if name not in given]
    try:
        rank, local_rank, count = (int(given.get(name, "0")) for name in VARIABLES[:3])
    except ValueError:
        rank = local_rank = count = -1
    if missing or not 0 <= rank < count or local_rank < 0:
        raise RecipeError(
            f"the environment says that this is one of several processes ({_listed(given)}), but not which: expected "
            f"{', '.join(VARIABLES)}, as torchrun sets them. Start with torchrun --nproc-per-node N -m pipeline ..., "
            "or train in one process with env -u RANK -u WORLD_SIZE."
        )
    return Processes(rank, count, local_rank)


def _listed(given: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in given.items())


@contextmanager
def _contact() -> Iterator[None]:
    """Say in words that the others do not answer."""
    try:
        yield
    except RuntimeError as error:
        # gloo raises bare RuntimeErrors that name its source files.
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        reason = str(error).splitlines()[0].rpartition("] ")[2].partition(". ")[0]
        raise UserError(
            f"lost contact with the other training processes ({reason}). One of them has stopped, and tells why above "
            f"or on its machine; or one did nothing for {PATIENCE.total_seconds() / 60:.0f} minutes. The same command "
            "goes on from the last checkpoint."
        ) from error
