"""Which options would make a cache fit on its disk. Only what fits is named."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pipeline.teacher_stage.cost import CacheOrder, cost_of, scenes_that_fit

_DIVISORS = (2, 4)  # of the BEV grid
_Change: TypeAlias = Callable[[CacheOrder], Iterator[tuple[str, CacheOrder]]]
"""Options of one kind, the mildest first, with what they make of an order."""


@dataclass(frozen=True)
class Way:
    """Options that make a cache fit.

    Attributes:
        options: as one types them.
        bytes: what it then takes.
        changes_form: whether they make another kind of cache, to which the scenes cached so far do not belong.
    """

    options: str
    bytes: int
    changes_form: bool = True


def ways_to_fit(order: CacheOrder, renewed: Sequence[int], free_bytes: int) -> list[Way]:
    """Options that fit: of each kind the mildest, and two kinds at once only where no single one does.

    Args:
        order: what does not fit.
        renewed: frames of each scene that would have to be cached in another form.
        free_bytes: on the disk.
    """
    whole = order.with_scenes(renewed)
    ways = [way for change in _CHANGES if (way := _mildest(change(whole), free_bytes)) is not None]
    if not ways:
        pairs = [(first, second) for number, first in enumerate(_CHANGES) for second in _CHANGES[number + 1 :]]
        both = (_mildest(_one_after_the_other(first, second, whole), free_bytes) for first, second in pairs)
        ways = [way for way in both if way is not None]
    count = scenes_that_fit(order, free_bytes)
    if count > 0:
        fewer = cost_of(order.with_scenes(order.scene_lengths[:count])).total
        ways.append(
            Way(f"--scenes with the first {count} of the {len(order.scene_lengths)}", fewer, changes_form=False)
        )
    return ways


def _mildest(candidates: Iterable[tuple[str, CacheOrder]], free_bytes: int) -> Way | None:
    priced = ((options, cost_of(changed).total) for options, changed in candidates)
    return next((Way(options, size) for options, size in priced if size <= free_bytes), None)


def _one_after_the_other(first: _Change, second: _Change, order: CacheOrder) -> Iterator[tuple[str, CacheOrder]]:
    for once_options, once in first(order):
        for twice_options, twice in second(once):
            yield f"{once_options} {twice_options}", twice


def _other_tiers(order: CacheOrder) -> Iterator[tuple[str, CacheOrder]]:
    if order.tier == "float16":
        yield "--tier int8", order.with_tier("int8")
    if order.tier != "archive":
        yield "--tier archive", order.with_tier("archive")


def _fewer_features(order: CacheOrder) -> Iterator[tuple[str, CacheOrder]]:
    """Without the largest feature, the two largest, ...; the BEV features go last."""
    sizes = {spec.name: order.with_features([spec.name]).frame_bytes for spec in order.specs}
    dropped = sorted(sizes, key=lambda name: (name == "bev", -sizes[name]))
    for count in range(1, len(dropped)):
        kept = [spec.name for spec in order.specs if spec.name in dropped[count:]]
        yield f"--arrays {','.join(kept)}", order.with_features(kept)


def _coarser_grids(order: CacheOrder) -> Iterator[tuple[str, CacheOrder]]:
    grid = order.grid
    for divisor in _DIVISORS:
        if grid.rows % divisor == 0 and grid.cols % divisor == 0:
            rows, cols = grid.rows // divisor, grid.cols // divisor
            yield f"--bev-grid {rows}", order.with_grid(grid.model_copy(update={"rows": rows, "cols": cols}))


_CHANGES: tuple[_Change, ...] = (_other_tiers, _fewer_features, _coarser_grids)
