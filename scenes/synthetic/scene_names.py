"""Which official scene names a world uses: the evaluation finds the scenes of a split by their names."""

from scenes.synthetic.options import WorldOptions

NO_CAN_BUS = frozenset({*range(161, 169), *range(170, 177), *range(309, 315)})
"""Scene numbers for which nuscenes-devkit refuses to read CAN bus messages."""


def scene_names(options: WorldOptions) -> dict[str, list[str]]:
    """Names by split: ``train`` and ``val`` from the official lists, ``tune`` from the official test list."""
    # Imported here: it takes a second and 160 MB, and the processes that draw have no need of it.
    from nuscenes.utils.splits import test, train, val  # noqa: PLC0415

    wanted = {
        "train": (train, options.train_scenes),
        "tune": (test, options.tune_scenes),
        "val": (val, options.val_scenes),
    }
    return {split: _first(names, count) for split, (names, count) in wanted.items()}


def _first(names: list[str], count: int) -> list[str]:
    return sorted(name for name in names if int(name[-4:]) not in NO_CAN_BUS)[:count]
