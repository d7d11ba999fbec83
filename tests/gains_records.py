"""Finished runs that nobody has made, for tests of what is made of them."""

from typing import Any

from pipeline.gains.record import Record
from pipeline.gains.rows import ROWS, Row

CLASS_AP = {"car": 0.5, "barrier": 0.0}


def made_up(row: str, seed: int, nds: float, **changes: Any) -> Record:
    """A run of a row as it stands, with the given NDS."""
    stands = next((known for known in ROWS if known.name == row), Row(row, "headline", (row,)))
    values: dict[str, Any] = {
        "study": "aaaa",
        "fingerprint": f"f-{row}",
        "group": stands.group,
        "row": row,
        "seed": seed,
        "distillers": ",".join(stands.distillers),
        "overrides": stands.overrides,
        "steps": 100 * stands.steps_factor,
        "split": "val",
        "recipe": "r",
        "cache": "c",
        "data": "d",
        "generator": 3,
        "packages": "torch 2.13",
        "program": "0.1.0/1",
        "threads": 1,
        "jobs": 1,
        "machine": "some processor, 2 cores, Linux",
        "nds": nds,
        "map": nds / 2,
        "mate": 0.8,
        "mase": 0.3,
        "maoe": 0.5,
        "mave": 1.0 - nds,
        "maae": 0.2,
        "class_ap": CLASS_AP,
        "steps_per_second": 4.0 if row == "none" else 3.0,
        "data_wait": 0.02,
        "peak_rss_mib": 700.0 if row == "none" else 750.0,
        "wall_s": 120.0,
        "date": "2026-01-01T00:00:00+00:00",
    }
    return Record.model_validate(values | changes)
