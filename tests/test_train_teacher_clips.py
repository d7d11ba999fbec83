"""Reading from somebody else's loop: any tokens, any order, with and without a DataLoader."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from cache_fakes import SLOTS, token_of, write_cache
from cache_no_fsync import no_fsync
from range_server import serving
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from cache import Cache, open_cache
from schemas.errors import CacheError, RecipeError
from train.frame_dataset import FrameDataset
from train.stream import StreamOptions, TargetWindow
from train.teacher_clips import TeacherClips

__all__ = ["no_fsync"]

TOKENS = [token_of(slot, step) for slot in SLOTS[:2] for step in range(slot.length)]
BATCHES = [[TOKENS[7], TOKENS[0]], [TOKENS[3]], [TOKENS[7], TOKENS[7]], [TOKENS[2], TOKENS[5]], [TOKENS[1]]]
WINDOW = TargetWindow(("bev", "query_boxes"), frames=2, batch_size=2)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A cache of which the first two scenes are made."""
    write_cache(tmp_path / "cache", SLOTS[:2])
    return open_cache(tmp_path / "cache")


@pytest.mark.parametrize("look_ahead", [1, 2, 9])
@pytest.mark.parametrize("by_loader", [False, True])
def test_batches_come_as_asked_for(cache: Cache, look_ahead: int, by_loader: bool) -> None:
    clips = TeacherClips(cache, WINDOW, BATCHES, StreamOptions(look_ahead=look_ahead))
    source = DataLoader(clips, batch_size=None) if by_loader else clips
    for _ in range(2):  # a second pass is the same
        count = 0
        for tokens, targets in zip(BATCHES, source, strict=True):
            count += 1
            for name in WINDOW.features:
                current, previous = targets.current(name), targets.window(name)[:, 0]
                assert len(current) == len(tokens)
                for row, token in enumerate(tokens):
                    np.testing.assert_allclose(current[row], cache.read(token, name), rtol=1e-6, atol=1e-6)
                    scene, step = cache.place(token)
                    assert targets.valid[row].tolist() == [step > 0, True]
                    if step > 0:
                        np.testing.assert_allclose(
                            previous[row], cache.read_step(scene, step - 1, name), rtol=1e-6, atol=1e-6
                        )
        assert count == len(BATCHES)


def test_a_batch_sampler_may_choose(cache: Cache) -> None:
    sampler = BatchSampler(RandomSampler(TOKENS), batch_size=3, drop_last=False)
    chosen = ([TOKENS[index] for index in batch] for batch in sampler)
    clips = TeacherClips(cache, TargetWindow(("query_boxes",), 1, 3), chosen)
    found = torch.cat([targets.current("query_boxes") for targets in clips])
    expected = np.stack([cache.read(token, "query_boxes") for token in TOKENS])
    np.testing.assert_array_equal(np.sort(found.numpy().ravel()), np.sort(expected.ravel()))


def test_stopping_early_ends_the_threads(cache: Cache) -> None:
    source = iter(TeacherClips(cache, WINDOW, BATCHES))
    next(source)
    source.close()
    with pytest.raises(StopIteration):
        next(source)


def test_what_cannot_be_read_is_refused(cache: Cache) -> None:
    with pytest.raises(CacheError, match=r"lacks the features depth"):
        TeacherClips(cache, TargetWindow(("depth",), 1, 1), BATCHES)
    with pytest.raises(CacheError, match=r"no frame with sample_token nobody"):
        list(TeacherClips(cache, WINDOW, [["nobody"]]))
    for batch in ([], TOKENS[:3]):
        with pytest.raises(RecipeError, match=rf"a batch of {len(batch)} sample tokens, expected 1 to 2"):
            list(TeacherClips(cache, WINDOW, [batch]))
    loader = DataLoader(TeacherClips(cache, WINDOW, BATCHES), batch_size=None, num_workers=1)
    with pytest.raises(RecipeError, match=r"cannot run in a DataLoader's worker processes"):
        next(iter(loader))
    with pytest.raises(CacheError, match=r"lacks the features depth"):
        FrameDataset(cache, TOKENS, ["depth"])
    with pytest.raises(CacheError, match=r"no frame with sample_token nobody"):
        FrameDataset(cache, ["nobody"], ["bev"])


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # Python 3.12
@pytest.mark.parametrize(("start", "workers"), [("fork", 2), ("spawn", 1)])
def test_a_dataset_reads_in_worker_processes(cache: Cache, start: str, workers: int) -> None:
    cache.read(TOKENS[0], "bev")  # the parent has used it, which must not matter
    dataset = FrameDataset(cache, TOKENS, ["bev", "query_boxes"])
    loader = DataLoader(
        dataset, batch_size=2, num_workers=workers, multiprocessing_context=multiprocessing.get_context(start)
    )
    found = list(loader)
    assert len(found) == 4
    for name in ("bev", "query_boxes"):
        expected = np.stack([cache.read(token, name) for token in TOKENS])
        np.testing.assert_array_equal(torch.cat([batch[name] for batch in found]), expected)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # Python 3.12
def test_a_remote_dataset_survives_a_fork(cache: Cache) -> None:
    with serving(cache.path.parent) as (host, _):
        remote = open_cache(f"{host}/cache")
        expected = remote.read(TOKENS[0], "query_boxes")  # connections are open now
        loader = DataLoader(
            FrameDataset(remote, TOKENS[:2], ["query_boxes"]),
            batch_size=None,
            num_workers=1,
            multiprocessing_context=multiprocessing.get_context("fork"),
        )
        np.testing.assert_array_equal(next(iter(loader))["query_boxes"], expected)
