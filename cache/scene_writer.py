"""Writes one scene, frame by frame; nothing of it is visible before ``commit``."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from cache.durable_files import disk_errors
from cache.frame_index_file import add_to_frames
from cache.frame_rows import row_fault
from cache.group import CacheGroup
from cache.layout import CacheLayout
from cache.publishing import publish
from cache.quantise import encode
from cache.receipts import Receipt
from cache.scene_lock import PartialFolder
from cache.shard_writer import ShardWriter
from cache.zarr_documents import SceneSlot
from schemas.errors import CacheError


class SceneWriter:
    """A context manager: append every frame in order, then commit. Leaving it without a commit leaves nothing.

    Its memory is that of one frame, whatever the scene's length.

    Attributes:
        slot: the scene.
    """

    def __init__(self, layout: CacheLayout, group: CacheGroup, slot: SceneSlot, made_with: Mapping[str, str]) -> None:
        self.slot = slot
        self._made_with = made_with
        self._layout = layout
        self._group = group
        self._appended = 0
        self._usable = False
        self._shards: dict[str, ShardWriter] = {}
        self._folder: PartialFolder | None = None

    def __enter__(self) -> "SceneWriter":
        assert self._folder is None, "a SceneWriter is entered once"
        with disk_errors(f"starting scene {self.slot.name}", self._layout.root):
            self._folder = PartialFolder(self._layout.partial, self.slot.name)
            try:
                for name, array in self._group.arrays.items():
                    path = self._folder.path / name
                    self._shards[name] = ShardWriter(path, array, self._group.step_axis, self._group.compressed)
            except BaseException:
                self._discard()
                raise
        self._usable = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._discard()

    def append(self, features: Mapping[str, NDArray[Any]]) -> None:
        """Quantise and append the next frame.

        Args:
            features: feature name to floats in the shape of its spec; exactly the manifest's features.

        Raises:
            CacheError: a feature is missing, unknown, of the wrong shape, not finite or out of its encoding's range;
                the scene has no more steps; or the disk refuses. Scene, step and feature are named.
        """
        manifest = self._group.manifest
        self._refuse_other_names("feature", features, [spec.name for spec in manifest.features])
        stored: dict[str, NDArray[Any]] = {}
        for spec in manifest.features:
            try:
                stored |= encode(spec, features[spec.name], manifest.tier)
            except CacheError as error:
                self._usable = False
                raise CacheError(f"{self._where()}: {error}") from error
        self.append_stored(stored)

    def append_stored(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Append a frame that is quantised already, as ``cache.quantise.encode`` would have done.

        Args:
            arrays: stored array name to one frame; exactly the arrays of the manifest's features.

        Raises:
            CacheError: as ``append``, except that values are not looked at.
        """
        if not self._usable:
            raise CacheError(f"{self._where()}: this writer has failed or has committed; begin the scene again")
        self._refuse_other_names("array", arrays, list(self._group.arrays))
        if self._appended == self.slot.length:
            raise CacheError(f"{self._where()}: the scene has only {self.slot.length} keyframes; nothing was stored")
        for name, array in self._group.arrays.items():
            found = f"{arrays[name].dtype.name} {arrays[name].shape}"
            if found != f"{array.dtype} {array.shape}":
                raise CacheError(f"{self._where()}: {name} is {found}, expected {array.dtype} {array.shape}")
        self._usable = False  # until all arrays hold the frame
        with disk_errors(f"writing {self._where()}", self._layout.root):
            for name, shard in self._shards.items():
                shard.append(arrays[name])
        self._appended += 1
        self._usable = True

    def commit(self, rows: pa.Table) -> bool:
        """Make the scene visible: index, fsync, rename, fsync, receipt. Returns once it would survive a power cut.

        Args:
            rows: the scene's frames in ``FRAME_SCHEMA``, one per appended frame.

        Returns:
            False when another writer committed the scene first; its files stay, ours are discarded.

        Raises:
            CacheError: frames are missing, the rows are not the scene's, or the disk refuses. Nothing is visible then,
                unless only the frame index failed, which the message says.
        """
        if not self._usable or self._folder is None:
            raise CacheError(f"scene {self.slot.name}: this writer has failed or has committed; begin the scene again")
        fault = row_fault(rows, self.slot)
        if self._appended != self.slot.length:
            fault = f"{self._appended} frames were appended, expected {self.slot.length}, one per keyframe"
        if fault is not None:
            raise CacheError(f"scene {self.slot.name} cannot be committed: {fault}")
        self._usable = False
        with disk_errors(f"committing scene {self.slot.name}", self._layout.root):
            contents = {name: shard.finish() for name, shard in self._shards.items()}
        receipt = Receipt(self.slot.name, rows.replace_schema_metadata(None), contents, self._made_with)
        published = publish(self._layout, self._group, receipt, self._folder.path)
        self._discard()
        add_to_frames(self._layout, self._group, (receipt,) if published else ())
        return published

    def _discard(self) -> None:
        self._usable = False
        for shard in self._shards.values():
            shard.close()
        if self._folder is not None:
            self._folder.remove()

    def _where(self) -> str:
        return f"scene {self.slot.name}, step {self._appended}"

    def _refuse_other_names(self, kind: str, found: Mapping[str, object], expected: list[str]) -> None:
        missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
        if missing or extra:
            raise CacheError(
                f"{self._where()}: missing {kind}s {missing}, unknown {kind}s {extra}; "
                f"the manifest of this cache has {sorted(expected)}"
            )
