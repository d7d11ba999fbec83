"""The store against a plain dictionary: writers, failing disks, damage, verification and repair, in any order.

The model knows which scenes are committed, with which numbers, and every byte they consisted of when they were. What
differs from those bytes is damaged, and that is exactly what ``verify`` must name, readers refuse and ``repair`` drop.
"""

import errno
import shutil
import tempfile
from pathlib import Path

import numpy as np
from cache_fakes import SLOTS, Features, features_of, manifest_of, rows_of, token_of
from cache_faults import error_of, faulty_disk, flipped
from cache_no_fsync import no_fsync
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cache.quantise import decode, encode
from cache.reading import open_cache
from cache.repair import repair
from cache.verify import verify
from cache.writing import CacheWriter, SceneSlot, open_for_writing
from schemas.errors import CacheError, DiskError
from schemas.features import FeatureSpec

__all__ = ["no_fsync"]

SPECS = (
    FeatureSpec(
        name="bev", dims=("y", "channel"), shape=(3, 2), encoding="affine", scale_dims=("channel",), description="Map."
    ),
    FeatureSpec(name="half", dims=("query",), shape=(2,), encoding="float16", description="Values rounded to half."),
)
ARRAYS = {array.name: array for spec in SPECS for array in spec.stored("int8")}
SLOT_OF = {slot.name: slot for slot in SLOTS}

scenes = st.sampled_from(SLOTS)
seeds = st.integers(0, 3)
arrays = st.sampled_from(sorted(ARRAYS))


class StoreMachine(RuleBasedStateMachine):
    """The model: the seed of each committed scene's numbers, and its files as they were committed."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.model: dict[str, int] = {}
        self.committed_files: dict[str, dict[Path, bytes]] = {}
        self.old_receipts: dict[str, dict[int, bytes]] = {slot.name: {} for slot in SLOTS}

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @initialize()
    def create(self) -> None:
        self.open_again()

    @rule()
    def open_again(self) -> None:
        """Refused when a receipt is damaged and no index stands in for it; never otherwise."""
        try:
            self.writer: CacheWriter = open_for_writing(self.root, manifest_of(SPECS), SLOTS)
        except CacheError as error:
            assert "its receipt cannot be read" in str(error)  # noqa: PT017

    # What writers do

    @rule(slot=scenes, seed=seeds)
    def write(self, slot: SceneSlot, seed: int) -> None:
        if slot.name not in self.model and not self._receipts_are_unreadable():
            assert self._written(slot, seed)
            self._remember(slot, seed)

    @rule(slot=scenes, count=st.integers(0, 1))
    def abandon(self, slot: SceneSlot, count: int) -> None:
        with self.writer.scene(slot.name) as scene:
            for step in range(count):
                scene.append(features_of(slot, step, SPECS))

    @rule(slot=scenes, seed=seeds)
    def two_writers(self, slot: SceneSlot, seed: int) -> None:
        """The first to commit wins; a scene that is there already, damaged or not, is nobody's to rewrite."""
        if self._receipts_are_unreadable():
            return
        there = slot.name in self.model
        with self.writer.scene(slot.name) as late, self.writer.scene(slot.name) as early:
            for step in range(slot.length):
                early.append(features_of(slot, step, SPECS, seed))
                late.append(features_of(slot, step, SPECS, seed + 1))
            assert early.commit(rows_of(slot)) is not there
            assert not late.commit(rows_of(slot))
        if not there:
            self._remember(slot, seed)

    @rule(slot=scenes, seed=seeds, chosen=st.integers(1, 70), lasting=st.booleans())
    def write_on_a_failing_disk(self, slot: SceneSlot, seed: int, chosen: int, lasting: bool) -> None:
        if slot.name in self.model or self._receipts_are_unreadable():
            return

        def outcome(number: int, _name: str) -> str | None:
            return "fail" if number == chosen or (lasting and number > chosen) else None

        with faulty_disk(outcome, errno.ENOSPC):
            error = error_of(lambda: self._written(slot, seed))
        assert error is None or isinstance(error, DiskError)
        if slot.name in self.writer.committed():  # it failed after the commit, or not at all
            self._remember(slot, seed)

    # What befalls files

    @rule()
    def lose_the_frame_index(self) -> None:
        (self.root / "frames.parquet").unlink(missing_ok=True)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def lose_a_receipt(self, data: st.DataObject) -> None:
        """The scene is absent then, and its files are remains."""
        name = data.draw(st.sampled_from(sorted(self.model)))
        self._receipt(name).unlink()
        self._forget(name)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), array=arrays, place=st.floats(0, 1, exclude_max=True))
    def flip_a_bit(self, data: st.DataObject, array: str, place: float) -> None:
        path = self._shard(data.draw(st.sampled_from(sorted(self.model))), array)
        if path.exists() and path.stat().st_size > 0:
            flipped(path, int(place * path.stat().st_size))

    @precondition(lambda self: self.model)
    @rule(data=st.data(), array=arrays, share=st.floats(0, 1, exclude_max=True))
    def truncate(self, data: st.DataObject, array: str, share: float) -> None:
        path = self._shard(data.draw(st.sampled_from(sorted(self.model))), array)
        if path.exists():
            content = path.read_bytes()
            path.write_bytes(content[: int(share * len(content))])

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def truncate_a_receipt(self, data: st.DataObject) -> None:
        path = self._receipt(data.draw(st.sampled_from(sorted(self.model))))
        path.write_bytes(path.read_bytes()[:-10])

    @precondition(lambda self: self.model)
    @rule(data=st.data(), array=arrays)
    def delete_a_shard(self, data: st.DataObject, array: str) -> None:
        self._shard(data.draw(st.sampled_from(sorted(self.model))), array).unlink(missing_ok=True)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), array=arrays, other_array=arrays)
    def swap_shards(self, data: st.DataObject, array: str, other_array: str) -> None:
        """Between scenes, or between the arrays of one: whole files that are right in themselves."""
        names = st.sampled_from(sorted(self.model))
        first, second = self._shard(data.draw(names), array), self._shard(data.draw(names), other_array)
        if first.exists() and second.exists():
            ours, theirs = first.read_bytes(), second.read_bytes()
            first.write_bytes(theirs)
            second.write_bytes(ours)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), seed=seeds)
    def put_back_an_old_receipt(self, data: st.DataObject, seed: int) -> None:
        """Of another writing of the same scene, if there was one."""
        name = data.draw(st.sampled_from(sorted(self.model)))
        if seed in self.old_receipts[name]:
            self._receipt(name).write_bytes(self.old_receipts[name][seed])

    # What must hold

    @rule()
    def repair(self) -> None:
        broken = self._broken()
        done = repair(self.root, verify(self.root, lambda _: None), lambda _: None)
        assert set(done.dropped) == broken
        assert done.left == ()
        for name in broken:
            self._forget(name)
        assert verify(self.root, lambda _: None).damages == ()
        self.open_again()

    @invariant()
    def verify_names_exactly_what_differs(self) -> None:
        found = verify(self.root, lambda _: None)
        assert set(found.broken_scenes) == self._broken()
        named = {(d.scene_name, d.array_name, d.step) for d in found.damages if d.remedy == "drop scene"}
        for name, files in self.committed_files.items():
            if self._receipt(name).read_bytes() != files[self._receipt(name)]:
                continue  # nothing is known about a scene whose receipt is not its own
            for array in ARRAYS:
                path = self._shard(name, array)
                steps = {step for scene_name, array_name, step in named if (scene_name, array_name) == (name, array)}
                assert steps == self._differing_steps(array, path, files[path]), (name, array)

    @invariant()
    def a_reader_gives_the_models_numbers_or_refuses(self) -> None:
        broken = self._broken()
        try:
            cache = open_cache(self.root)
        except CacheError:
            assert broken, "refused although nothing is damaged"
            return
        assert set(cache.scene_names) == self.model.keys()
        for name, seed in self.model.items():
            slot = SLOT_OF[name]
            for step in range(slot.length):
                for spec in SPECS:
                    exact = stored_and_read(spec, features_of(slot, step, SPECS, seed))
                    try:
                        found = cache.read(token_of(slot, step), spec.name)
                    except CacheError:
                        assert name in broken, "refused although the scene is sound"
                    else:
                        np.testing.assert_array_equal(found, exact)

    # The model's own

    def _written(self, slot: SceneSlot, seed: int) -> bool:
        with self.writer.scene(slot.name) as scene:
            for step in range(slot.length):
                scene.append(features_of(slot, step, SPECS, seed))
            return scene.commit(rows_of(slot))

    def _remember(self, slot: SceneSlot, seed: int) -> None:
        paths = [self._receipt(slot.name), *(self._shard(slot.name, array) for array in ARRAYS)]
        self.model[slot.name] = seed
        self.committed_files[slot.name] = {path: path.read_bytes() for path in paths}
        self.old_receipts[slot.name][seed] = self._receipt(slot.name).read_bytes()

    def _forget(self, name: str) -> None:
        del self.model[name], self.committed_files[name]

    def _broken(self) -> set[str]:
        return {
            name
            for name, files in self.committed_files.items()
            if any(not path.exists() or path.read_bytes() != content for path, content in files.items())
        }

    def _receipts_are_unreadable(self) -> bool:
        """Then a writer cannot tell what there is, and refuses until the cache is repaired."""
        return any(
            not self._receipt(name).read_bytes().endswith(b"PAR1")
            for name in self.model
            if self._receipt(name).exists()
        )

    def _receipt(self, name: str) -> Path:
        return self.root / "receipts" / f"{name}.parquet"

    def _shard(self, name: str, array: str) -> Path:
        index = [slot.name for slot in SLOTS].index(name)
        return self.root / array / ".".join(["c", str(index), *["0"] * (1 + len(ARRAYS[array].shape))])

    def _differing_steps(self, array: str, path: Path, content: bytes) -> set[int | None]:
        """The steps whose bytes are not what they were; None stands for the file as a whole, or its index."""
        if not path.exists():
            return {None}
        found = path.read_bytes()
        nbytes = int(np.prod(ARRAYS[array].shape)) * np.dtype(ARRAYS[array].dtype).itemsize + 4
        steps = (len(content) - 4 - 16 * max(slot.length for slot in SLOTS)) // nbytes
        spans = {step: slice(step * nbytes, (step + 1) * nbytes) for step in range(steps)}
        differing: set[int | None] = {step for step, span in spans.items() if found[span] != content[span]}
        end = slice(steps * nbytes, None)
        return differing | ({None} if len(found) != len(content) or found[end] != content[end] else set())


def stored_and_read(spec: FeatureSpec, frame: Features) -> Features:
    """What a frame is after it was stored: exact, because the arithmetic is."""
    return decode(spec, encode(spec, frame[spec.name], "int8"), "int8")


StoreMachine.TestCase.settings = settings(max_examples=12, stateful_step_count=12)
test_the_store_behaves_as_a_dictionary = StoreMachine.TestCase
