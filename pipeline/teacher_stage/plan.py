"""What a cache costs, before it is made."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """What a run of the teacher stage will take."""
