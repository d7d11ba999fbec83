"""Fidelity, for people."""

from pipeline.console import console, print_table
from schemas.fidelity import BoxFidelity, Fidelity


def print_fidelity(fidelity: Fidelity, title: str) -> None:
    """Print one row for each feature, and what the differences do to the boxes in words."""
    print_table(
        f"{title} ({fidelity.frames} frame{'s' if fidelity.frames > 1 else ''})",
        ("feature", "centred error", "cosine", "largest error", "in std"),
        [
            (
                feature.name,
                _percent(feature.centred_error),
                "constant" if feature.cosine is None else f"{feature.cosine:.6f}",
                f"{feature.largest_error:.3g}",
                f"{feature.largest_error_std:.3g}",
            )
            for feature in fidelity.features
        ],
    )
    told = "The teacher decodes no cached BEV map, so no boxes are compared."
    console.print(told if fidelity.boxes is None else box_sentence(fidelity.boxes), soft_wrap=True)


def box_sentence(boxes: BoxFidelity) -> str:
    """The comparison of boxes in words."""
    count = f"{boxes.boxes} box{'' if boxes.boxes == 1 else 'es'}"
    if boxes.chosen == "score":
        chosen = f"Boxes of the live BEV with a score above {boxes.threshold:g}: {count}"
    else:
        chosen = f"No box of the live BEV scores above {boxes.threshold:g}, so each frame's best {boxes.best}: {count}"
    if boxes.unmatched == boxes.boxes:
        return f"{chosen}. None is found again within {boxes.within_m:g} m in what the cached BEV decodes to."
    found = "all are found again"
    if boxes.unmatched > 0:
        score = f"the best of them scores {boxes.unmatched_best_score:.2g}"
        verb = "is" if boxes.unmatched == 1 else "are"
        found = f"{boxes.unmatched} {verb} not found again within {boxes.within_m:g} m ({score})"
    return (
        f"{chosen}. Decoded from the cached BEV, {found}; "
        f"scores change by {boxes.score_change_mean:.2g} on average and {boxes.score_change_max:.2g} at most, "
        f"centres move by {boxes.center_change_mean_m:.2g} m and {boxes.center_change_max_m:.2g} m."
    )


def _percent(share: float | None) -> str:
    if share is None:
        return "constant"
    return f"{100 * share:.2g}%" if share < 0.995 else f"{100 * share:.0f}%"
