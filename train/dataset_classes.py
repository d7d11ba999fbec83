"""Annotations and scores number the classes in one order; a detector with another one would learn nonsense."""

from schemas.boxes import CLASS_NAMES
from schemas.errors import RecipeError


def require_dataset_classes(class_names: tuple[str, ...]) -> None:
    """Refuse a detector whose logits are not of the data's classes in the data's order.

    Raises:
        RecipeError: they are not.
    """
    if class_names != CLASS_NAMES:
        raise RecipeError(
            f"the detector's classes are {', '.join(class_names)}; annotations are numbered, and detections scored, as "
            f"{', '.join(CLASS_NAMES)}. Leave detector.class_names as it is: a detector for fewer classes is trained "
            "on all of them, and the others' detections are left unread"
        )
