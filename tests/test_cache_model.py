"""The store against a plain dictionary: any sequence of openings, scenes, abandonments and losses."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from cache_fakes import SLOTS, Features, features_of, manifest_of, rows_of, token_of
from cache_no_fsync import no_fsync
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cache.reading import open_cache
from cache.writing import CacheWriter, open_for_writing
from schemas.features import FeatureSpec

__all__ = ["no_fsync"]

SPECS = (
    FeatureSpec(name="boxes", dims=("query", "code"), shape=(2, 3), encoding="float32", description="Exact values."),
    FeatureSpec(name="half", dims=("query",), shape=(2,), encoding="float16", description="Values rounded to half."),
)


class StoreMachine(RuleBasedStateMachine):
    """The model is a dictionary: sample token to features, of committed scenes only."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.model: dict[str, dict[str, Features]] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @initialize()
    def create(self) -> None:
        self.open_again()

    @rule()
    def open_again(self) -> None:
        self.writer: CacheWriter = open_for_writing(self.root, manifest_of(SPECS), SLOTS)

    @rule(number=st.integers(0, 2), seed=st.integers(0, 9))
    def write(self, number: int, seed: int) -> None:
        slot = SLOTS[number]
        if slot.name in self.model:
            assert slot.name in self.writer.committed()
            return
        frames = [features_of(slot, step, SPECS, seed) for step in range(slot.length)]
        with self.writer.scene(slot.name) as scene:
            for frame in frames:
                scene.append(frame)
            assert scene.commit(rows_of(slot))
        self.model[slot.name] = {token_of(slot, step): frame for step, frame in enumerate(frames)}

    @rule(number=st.integers(0, 2), count=st.integers(0, 1))
    def abandon(self, number: int, count: int) -> None:
        slot = SLOTS[number]
        if slot.name not in self.model:
            with self.writer.scene(slot.name) as scene:
                for step in range(count):
                    scene.append(features_of(slot, step, SPECS))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        (self.root / "receipts" / f"{name}.parquet").unlink()
        del self.model[name]

    @rule()
    def lose_the_frame_index(self) -> None:
        (self.root / "frames.parquet").unlink(missing_ok=True)

    @invariant()
    def the_reader_sees_the_model(self) -> None:
        cache = open_cache(self.root)
        assert set(cache.scene_names) == self.model.keys() == self.writer.committed()
        expected = {token: frame for frames in self.model.values() for token, frame in frames.items()}
        assert set(cache.frames["sample_token"].to_pylist()) == expected.keys()
        for token, frame in expected.items():
            np.testing.assert_array_equal(cache.read(token, "boxes"), frame["boxes"])
            np.testing.assert_array_equal(cache.read(token, "half"), frame["half"].astype(np.float16))


StoreMachine.TestCase.settings = settings(max_examples=12, stateful_step_count=8, deadline=None)
test_the_store_behaves_as_a_dictionary = StoreMachine.TestCase
