"""What every test shares: one thread, no clock, a non-interactive matplotlib, one tiny synthetic world per session."""

import os

os.environ["MPLBACKEND"] = "Agg"
os.environ["OMP_NUM_THREADS"] = "1"

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from tiny_world import write_tiny_world

torch.set_num_threads(1)
settings.register_profile("without-a-clock", deadline=None)
settings.load_profile("without-a-clock")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell starts what runs behind it, and programs inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parent.parent
ONE_FRAME = Path(os.environ.get("NUSCENES_ONE_FRAME", REPOSITORY.parent / "shared" / "nuscenes-one-frame"))


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Give each test the same random stream, whatever ran before it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session")
def one_frame() -> Path:
    """The real nuScenes keyframe; it is not part of the project, so tests that need it skip without it."""
    if not (ONE_FRAME / "v1.0-mini").is_dir():
        pytest.skip(f"no real keyframe at {ONE_FRAME}; name its folder in NUSCENES_ONE_FRAME")
    return ONE_FRAME


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic nuScenes directory of five scenes with four frames each. Tests that change files take a copy."""
    return write_tiny_world(tmp_path_factory.mktemp("tiny-world") / "nuscenes")
