"""Cached frames one by one, for a ``DataLoader`` with worker processes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cache.reading import Cache


class FrameDataset(Dataset[dict[str, Tensor]]):
    """A map-style dataset over sample tokens; safe to fork and to spawn, for a cache keeps nothing open.

    It fits any existing loop, with any sampler. It is not the quick way: every tensor is copied out of its worker,
    which takes several times as long as reading it. ``TeacherClips`` has no such copy.

    Args:
        cache: an open cache, local or remote.
        sample_tokens: what index 0, 1, ... stand for.
        features: names of the features wanted.

    Raises:
        CacheError: the cache lacks a feature or a frame.
    """

    def __init__(self, cache: Cache, sample_tokens: Sequence[str], features: Sequence[str]) -> None:
        cache.require_features(features)
        for token in sample_tokens:
            cache.place(token)
        self._cache, self._sample_tokens, self._features = cache, tuple(sample_tokens), tuple(features)

    def __len__(self) -> int:
        return len(self._sample_tokens)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Feature name to float32 in the shape of its spec, checksum verified.

        Raises:
            CacheError: the file is damaged.
        """
        token = self._sample_tokens[index]
        return {name: torch.from_numpy(self._cache.read(token, name)) for name in self._features}
