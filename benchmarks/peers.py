"""The same frames as other formats store them, each the way that reads fastest: frame-sized chunks, uncompressed.

A frame is the int8 BEV map with its scales and offsets. One file or shard holds one scene, as in our store; safetensors
has a file a frame. Where a format has no checksum of its own, each frame's crc32c lies beside it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import is_installed
from cache.shard_file import ShardFile
from cache.writing import SceneSlot

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Scene:
    """All frames of one scene, read back from our own store.

    Attributes:
        slot: which.
        arrays: (steps, ...) by array name.
    """

    slot: SceneSlot
    arrays: Arrays


def scene_of(slot: SceneSlot, shards: Mapping[str, ShardFile]) -> Scene:
    """Read a scene whole."""
    return Scene(
        slot,
        {name: np.stack([shard.read(step) for step in range(slot.length)]) for name, shard in shards.items()},
    )


def write_zarr(folder: Path, scenes: Sequence[Scene], *, checksums: bool) -> None:
    """One sharded array for each name, as zarr-python's documentation does: shard = scene, chunk = frame."""
    import zarr  # noqa: PLC0415

    group = zarr.create_group(folder)
    for name, values in scenes[0].arrays.items():
        array = group.create_array(
            name,
            shape=(len(scenes), *values.shape),
            dtype=values.dtype,
            shards=(1, *values.shape),
            chunks=(1, 1, *values.shape[1:]),
            compressors=[zarr.codecs.Crc32cCodec()] if checksums else None,
        )
        for index, scene in enumerate(scenes):
            array[index] = scene.arrays[name]


def write_tiled_zarr(folder: Path, frames: NDArray[np.int8], tile: int, *, checksums: bool) -> None:
    """BEV maps (steps, y, x, channel) of one scene, as one shard of channel-last tiles."""
    import zarr  # noqa: PLC0415

    array = zarr.create_array(
        folder,
        shape=(1, *frames.shape),
        dtype=frames.dtype,
        shards=(1, *frames.shape),
        chunks=(1, 1, tile, tile, frames.shape[-1]),
        compressors=[zarr.codecs.Crc32cCodec()] if checksums else None,
    )
    array[0] = frames


def write_safetensors(folder: Path, scenes: Sequence[Scene]) -> None:
    """A file a frame."""
    from safetensors.numpy import save_file  # noqa: PLC0415

    folder.mkdir()
    for scene in scenes:
        for step in range(scene.slot.length):
            frame = {name: np.ascontiguousarray(values[step]) for name, values in scene.arrays.items()}
            save_file(frame, folder / f"{scene.slot.name}-{step}.safetensors")


def write_h5(folder: Path, scenes: Sequence[Scene]) -> None:
    """A file a scene, contiguous datasets: HDF5's fastest to read."""
    import h5py  # type: ignore[import-untyped]  # noqa: PLC0415

    folder.mkdir()
    for scene in scenes:
        with h5py.File(folder / f"{scene.slot.name}.h5", "w") as file:
            for name, values in scene.arrays.items():
                file.create_dataset(name, data=values)


def write_webdataset(folder: Path, scenes: Sequence[Scene], clip_frames: int) -> None:
    """A tar a scene, a sample a clip: the format reads in the order it was written, so clips are cut beforehand."""
    import webdataset  # type: ignore[import-untyped]  # noqa: PLC0415

    folder.mkdir()
    for index, scene in enumerate(scenes):
        with webdataset.TarWriter(str(folder / f"scene-{index:04d}.tar")) as tar:
            for start in range(0, scene.slot.length - clip_frames + 1, clip_frames):
                clip = {f"{name}.bin": v[start : start + clip_frames].tobytes() for name, v in scene.arrays.items()}
                tar.write({"__key__": f"{scene.slot.name}-{start:03d}", **clip})


class ZarrClips:
    """Clips from ``write_zarr``, as stored."""

    def __init__(self, folder: Path) -> None:
        import zarr  # noqa: PLC0415

        group = zarr.open_group(folder, mode="r")
        self._arrays = {name: group[name] for name in group.array_keys()}

    def read(self, scene: int, first: int, frames: int) -> dict[str, NDArray[Any]]:
        """Fresh arrays."""
        return {name: array[scene, first : first + frames] for name, array in self._arrays.items()}

    def read_into(self, scene: int, first: int, into: Arrays) -> None:
        """Into arrays that are there already."""
        from zarr.core.buffer.cpu import NDBuffer  # noqa: PLC0415

        for name, array in self._arrays.items():
            target = into[name]
            selection = (scene, slice(first, first + len(target)))
            array.get_basic_selection(selection, out=NDBuffer(target))


class SafetensorsClips:
    """Clips from ``write_safetensors``."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder, self._names = folder, names

    def read(self, scene: int, first: int, frames: int) -> dict[str, NDArray[Any]]:
        """Fresh arrays."""
        from safetensors.numpy import load_file  # noqa: PLC0415

        loaded = [load_file(self._path(scene, step)) for step in range(first, first + frames)]
        return {name: np.stack([frame[name] for frame in loaded]) for name in self._names}

    def read_into(self, scene: int, first: int, into: Arrays) -> None:
        """Copied from the file's mapping into arrays that are there already."""
        from safetensors import safe_open  # noqa: PLC0415

        for row in range(len(next(iter(into.values())))):
            with safe_open(self._path(scene, first + row), framework="pt") as file:
                for name in self._names:
                    torch.from_numpy(into[name][row]).copy_(file.get_tensor(name))

    def _path(self, scene: int, step: int) -> Path:
        return self._folder / f"scene-{scene:04d}-{step}.safetensors"


class H5Clips:
    """Clips from ``write_h5``; files stay open."""

    def __init__(self, folder: Path) -> None:
        import h5py  # noqa: PLC0415

        self._files = [h5py.File(path, "r") for path in sorted(folder.glob("*.h5"))]

    def read(self, scene: int, first: int, frames: int) -> dict[str, NDArray[Any]]:
        """Fresh arrays."""
        return {name: values[first : first + frames] for name, values in self._files[scene].items()}

    def read_into(self, scene: int, first: int, into: Arrays) -> None:
        """Into arrays that are there already."""
        for name, values in self._files[scene].items():
            values.read_direct(into[name], source_sel=np.s_[first : first + len(into[name])])


@dataclass(frozen=True)
class Peer:
    """A format that gives random clips.

    Attributes:
        module: to be imported.
        write: ``(folder, scenes)``.
        open: from the folder.
        self_checking: whether its reader verifies checksums by itself.
    """

    module: str
    write: Callable[[Path, Sequence[Scene]], None]
    open: Callable[[Path], Any]
    self_checking: bool = False

    @property
    def is_here(self) -> bool:
        """Whether it can be imported."""
        return is_installed(self.module)
