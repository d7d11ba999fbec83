"""A detection score, as plain numbers: known without the devkit that computes it."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Score:
    """What the official evaluation says about a set of detections.

    Attributes:
        nds: nuScenes detection score in [0, 1].
        mean_ap: mean average precision over classes and distances, in [0, 1].
        tp_errors: mATE (m), mASE (1 - IoU), mAOE (rad), mAVE (m/s), mAAE (1 - accuracy), means over classes.
        class_ap: average precision by class.
        class_tp_errors: the five errors by class (keys as in ``tp_errors``), NaN where the benchmark defines none.
        split: the split scored.
        samples: number of its samples.
    """

    nds: float
    mean_ap: float
    tp_errors: dict[str, float]
    class_ap: dict[str, float]
    class_tp_errors: dict[str, dict[str, float]]
    split: str
    samples: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a log or a JSON file, None where the benchmark defines no error."""
        errors = {
            name: {error: None if math.isnan(value) else value for error, value in by_error.items()}
            for name, by_error in self.class_tp_errors.items()
        }
        return asdict(self) | {"class_tp_errors": errors}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Score":
        """The score that ``as_dict`` gave; other keys are passed over.

        Raises:
            KeyError, TypeError: a value is missing or is something else.
        """
        by_class = {
            name: {error: math.nan if value is None else float(value) for error, value in errors.items()}
            for name, errors in values["class_tp_errors"].items()
        }
        plain = {field.name: values[field.name] for field in fields(cls)}
        return cls(**(plain | {"class_tp_errors": by_class}))
