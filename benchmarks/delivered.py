"""Frames delivered to the training process: our stream against a stock torch DataLoader over other formats.

    python -m benchmarks.delivered

Random clips of four Base-sized BEV maps (int8, with scales and offsets), uncompressed in every format, frame-sized
chunks. The DataLoader is ``DataLoader(dataset, batch_size=None, num_workers=2, persistent_workers=True)``: without
collation, and without its start-up in the figure. webdataset reads in the order it was written, which is less work than
random clips.

The last rows give the peers what our stream has, preallocated buffers filled by two threads, and compare with the best
of them. "Verified" is each frame's crc32c: by zarr's own codec where zarr-python reads, by google-crc32c where the
format has none. Cold: pages dropped before each contender of each round; there the disk is the limit of everybody, so
the goal for the DataLoader holds for warm pages. Prints a Markdown table; figures are frames/s.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from benchmarks.base_frames import BASE_CELLS, base_specs, random_clips, slots_of, write_base_cache
from benchmarks.clip_stream import CLIP_FRAMES, LOOK_AHEAD, THREADS, stream_clips
from benchmarks.machine import command_line, drop_page_cache, is_installed, pin, scratch
from benchmarks.peers import (
    H5Clips,
    Peer,
    SafetensorsClips,
    ZarrClips,
    scene_of,
    write_h5,
    write_safetensors,
    write_webdataset,
    write_zarr,
)
from benchmarks.report import Comparison, Goal, missing_peer, print_comparisons
from benchmarks.ring_reader import RingReader
from benchmarks.rounds import Contender, Spread, best_of, nothing, ratio, spread, time_rounds
from cache.reading import Cache, open_cache
from cache.writing import SceneSlot
from schemas.features import frame_bytes
from train.clips import Clip
from train.stream import StreamOptions, TargetWindow, TeacherStream

WORKERS = 2
PASSES = {"warm": 2, "cold": 1}
"""How often a round reads all clips; a second cold pass would be warm."""

LOADER_GOAL = Goal(5)
THREADS_GOAL = Goal(1)
NAMES = ("bev", "bev_scale", "bev_offset")
Checksums = Mapping[str, Sequence[NDArray[np.uint32]]]
"""By array and scene: one crc32c a step."""

PEERS = {
    "zarr-python": Peer("zarr", partial(write_zarr, checksums=False), ZarrClips),
    "zarr-python, checked": Peer("zarr", partial(write_zarr, checksums=True), ZarrClips, self_checking=True),
    "safetensors": Peer("safetensors", write_safetensors, partial(SafetensorsClips, names=NAMES)),
    "h5py": Peer("h5py", write_h5, H5Clips),
}


class ClipOrder:
    """A sampler whose order is set before each round: (scene index, first step) of each clip."""

    def __init__(self) -> None:
        self.clips: Sequence[Clip] = ()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([place_of(clip) for clip in self.clips])

    def __len__(self) -> int:
        return len(self.clips)


class PeerDataset(Dataset[dict[str, NDArray[Any]]]):
    """Clips of one peer. Each worker opens the files for itself."""

    def __init__(self, peer: Peer, folder: Path, checksums: Checksums | None) -> None:
        self._peer, self._folder, self._checksums = peer, folder, checksums
        self._reader: Any = None

    def __getitem__(self, place: tuple[int, int]) -> dict[str, NDArray[Any]]:
        if self._reader is None:
            self._reader = self._peer.open(self._folder)
        arrays: dict[str, NDArray[Any]] = self._reader.read(*place, CLIP_FRAMES)
        if self._checksums is not None and not self._peer.self_checking:
            verify(arrays, *place, self._checksums)
        return arrays


class SampleDecoder:
    """From webdataset's bytes to arrays."""

    def __init__(self, shapes: Mapping[str, tuple[str, tuple[int, ...]]], checksums: Checksums | None) -> None:
        self._shapes, self._checksums = shapes, checksums

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Views of the bytes that were read."""
        arrays = {
            name: np.frombuffer(sample[f"{name}.bin"], dtype).reshape(CLIP_FRAMES, *shape)
            for name, (dtype, shape) in self._shapes.items()
        }
        if self._checksums is not None:
            scene, first = sample["__key__"].removeprefix("scene-").split("-")
            verify(arrays, int(scene), int(first), self._checksums)
        return arrays


def place_of(clip: Clip) -> tuple[int, int]:
    """(scene index, first step)."""
    return int(clip.scene_name.removeprefix("scene-")), clip.steps[0]


def verify(arrays: Mapping[str, NDArray[Any]], scene: int, first: int, checksums: Checksums) -> None:
    """Compare each frame of a clip with its checksum."""
    for name, frames in arrays.items():
        for row, expected in zip(frames, checksums[name][scene][first:], strict=False):
            assert google_crc32c.value(np.ascontiguousarray(row).reshape(-1).view(np.uint8)) == expected


def drain(loader: Any) -> int:
    """One epoch, touching one number of each clip."""
    return sum(int(clip["bev"].view(-1)[0]) for clip in loader)


class Comparisons:
    """One store, all peers, verified or not.

    Args:
        folder: holds ``cache``, and a folder for each peer's files.
        slots: the scenes.
        verified: whether both sides check.
    """

    def __init__(self, folder: Path, slots: Sequence[SceneSlot], *, verified: bool) -> None:
        self.folder, self.slots, self.verified = folder, slots, verified
        self.cache: Cache = open_cache(folder / "cache")
        crc = {name: [self.cache.shard(slot.name, name).crc32c for slot in slots] for name in NAMES}
        self.checksums: Checksums | None = crc if verified else None
        self.peers = {
            name: peer
            for name, peer in PEERS.items()
            if peer.is_here and (peer.module != "zarr" or peer.self_checking == verified)
        }

    def clips(self, number: int, temperature: str) -> list[Clip]:
        """What a round reads."""
        passes = range(PASSES[temperature])
        return [clip for again in passes for clip in random_clips(self.slots, CLIP_FRAMES, number * 10 + again)]

    def loaders(self, temperature: str) -> dict[str, Contender]:
        """Stock DataLoaders by name. Their workers are forked at the first use, so use them before any thread."""
        contenders = {name: self._loader(name, peer, temperature) for name, peer in self.peers.items()}
        if is_installed("webdataset"):
            contenders["webdataset"] = self._webdataset(temperature)
        return contenders

    def rings(self, temperature: str) -> tuple[dict[str, Contender], list[RingReader]]:
        """The peers' own reading into preallocated buffers in threads."""
        arrays = [self.cache.arrays[name] for name in NAMES]
        contenders: dict[str, Contender] = {}
        rings = []
        for name, peer in self.peers.items():
            fill = partial(self._fill, peer.open(self.folder / folder_of(name)), checked=peer.self_checking)
            ring = RingReader(arrays, CLIP_FRAMES, THREADS, LOOK_AHEAD, fill)
            contenders[f"{name}, in threads"] = lambda number, ring=ring: ring.read(self.clips(number, temperature))  # type: ignore[misc]
            rings.append(ring)
        return contenders, rings

    def compare(self, temperature: str, rounds: int) -> list[Comparison]:
        """The rows of one temperature."""
        loaders = self.loaders(temperature)
        for loader in loaders.values():
            loader(0)
        threaded, rings = self.rings(temperature)
        options = StreamOptions(look_ahead=LOOK_AHEAD, read_threads=THREADS, verify_checksums=self.verified)
        window = TargetWindow(("bev",), CLIP_FRAMES, 1)
        with TeacherStream(self.cache, window, options, torch.device("cpu")) as stream:
            ours: dict[str, Contender] = {"": lambda number: stream_clips(stream, self.clips(number, temperature))}
            prepare = partial(drop_page_cache, self.folder) if temperature == "cold" else nothing
            seconds = time_rounds(ours | threaded | loaders, rounds, prepare)
        for ring in rings:
            ring.close()
        frames = CLIP_FRAMES * len(self.clips(0, temperature))
        setting = f"{temperature}, {'verified' if self.verified else 'not verified'}"
        goal = LOADER_GOAL if temperature == "warm" else None
        rows = [
            Comparison(f"DataLoader, {name}", setting, *_rates(seconds[""], seconds[name], frames), goal)
            for name in loaders
        ]
        best = best_of([seconds[name] for name in threaded])
        (name,) = [name for name in threaded if seconds[name] == best]
        return [*rows, Comparison(f"best: {name}", setting, *_rates(seconds[""], best, frames), THREADS_GOAL)]

    def _loader(self, name: str, peer: Peer, temperature: str) -> Contender:
        order = ClipOrder()
        dataset = PeerDataset(peer, self.folder / folder_of(name), self.checksums)
        loader = DataLoader(dataset, batch_size=None, sampler=order, num_workers=WORKERS, persistent_workers=True)

        def epoch(number: int) -> int:
            order.clips = self.clips(number, temperature)
            return drain(loader)

        return epoch

    def _webdataset(self, temperature: str) -> Contender:
        import webdataset  # noqa: PLC0415

        shapes = {name: (self.cache.arrays[name].dtype, self.cache.arrays[name].shape) for name in NAMES}
        tars = [str(path) for path in sorted((self.folder / "webdataset").glob("*.tar"))]
        dataset = webdataset.WebDataset(tars, shardshuffle=False).map(SampleDecoder(shapes, self.checksums))
        loader = DataLoader(dataset, batch_size=None, num_workers=WORKERS, persistent_workers=True)
        return lambda _: sum(drain(loader) for _ in range(PASSES[temperature]))

    def _fill(self, reader: Any, clip: Clip, into: Mapping[str, NDArray[Any]], *, checked: bool) -> None:
        scene, first = place_of(clip)
        reader.read_into(scene, first, into)
        if self.checksums is not None and not checked:
            verify(into, scene, first, self.checksums)


def folder_of(name: str) -> str:
    """Folder of a peer's files."""
    return name.replace(", ", "-")


def write_stores(folder: Path, slots: Sequence[SceneSlot], cells: int) -> None:
    """Our cache, then the same frames in every format at hand."""
    write_base_cache(folder / "cache", base_specs(cells, ("bev",)), slots, cells)
    cache = open_cache(folder / "cache")
    scenes = [scene_of(slot, {name: cache.shard(slot.name, name) for name in NAMES}) for slot in slots]
    for name, peer in PEERS.items():
        if peer.is_here:
            peer.write(folder / folder_of(name), scenes)
    if is_installed("webdataset"):
        write_webdataset(folder / "webdataset", scenes, CLIP_FRAMES)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = command_line(__doc__, rounds=7)
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--steps", type=int, default=16, help="keyframes in a scene")
    parser.add_argument("--cells", type=int, default=BASE_CELLS, help="rows and columns of the BEV grid")
    chosen = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", message="The given (NumPy array|buffer) is not writable")  # read-only is enough
    slots = slots_of(chosen.scenes, chosen.steps)
    one_store_gb = frame_bytes(base_specs(chosen.cells, ("bev",)), "int8") * chosen.scenes * chosen.steps / 1e9
    pin(THREADS)
    with scratch(chosen.folder, 6.5 * one_store_gb) as folder:
        write_stores(folder, slots, chosen.cells)
        rows: list[Comparison | tuple[str, ...]] = []
        for verified in (True, False):
            for temperature in PASSES:
                rows += Comparisons(folder, slots, verified=verified).compare(temperature, chosen.rounds)
    rows += [missing_peer(module) for module in ("h5py", "webdataset") if not is_installed(module)]
    print_comparisons(rows)


def _rates(ours: Sequence[float], theirs: Sequence[float], frames: int) -> tuple[Spread, Spread, Spread]:
    ours_rate, theirs_rate = ([frames / second for second in seconds] for seconds in (ours, theirs))
    return spread(ours_rate), spread(theirs_rate), ratio(theirs, ours)


if __name__ == "__main__":
    main()
