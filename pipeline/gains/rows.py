"""What the study compares: one row for each way of training the demo's student. This file is its lab book.

Every number here that was tuned was tuned on the world's ``tune`` scenes with seeds from 100 on (``results/demo/
tuning.csv`` holds every such run); the ``val`` scenes are scored by the rows as they stand, with the seeds 0, 1, 2, ...

A row is the base recipe with other distillers and a few other values. Its student, its data, its number of steps and,
seed by seed, its first weights and the order of its clips are those of the row that it is compared with. The rows of
one distiller start from the teacher's head and give it the same say beside the annotations, so that they differ by
their losses alone; what the head gives by itself is a row of its own, ``inherited-alone``. An ablation that drops
terms keeps the share, so those left weigh more. ``best`` also starts from the teacher's history fusion; its ablations
tell what is the fusion's and what the losses'.

Found on the way, one seed each (NDS on tune; ``none`` has 21.3):

* With the teacher's head the student's channels mean what the teacher's mean. Pearson's correlation then does best
  without a projection: 25.5, and 24.1 with one on a student that had not inherited.
* Squared errors on those channels cost precision, the more cells they cover: ``fd3d-heatmap`` and ``structured-kd``
  lose 0.6 to 1.8 mAP and places get worse, though the other errors fall. Generators of ``tempdistiller`` and ``fd3d``
  that began as the identity, to the same end, gave 22.5 and 24.7 where random ones give 24.2 and 25.2; they are not in
  the program.
* The block that lays the previous map beneath the present one carries the teacher's sense of velocity with it: ``best``
  with the teacher's (``inherit``: ``history_fusion``) has 27.2 and a velocity error of 1.15 m/s, without 26.0 and 1.71.
* The head is not what holds ``best`` back while it is new to the student: trained at a tenth of the rate it gives 25.6,
  held 24.5; and losses that fade to nothing between steps 200 and 600 give 25.5, where standing ones give 26.0. Neither
  is in the program.
* Responses of nearest queries (``structured_kd.decoder=nearest``) take all of the gain of ``structured-kd``: 21.0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from schemas.errors import RecipeError
from train.inheritance import PARTS

Group = Literal["headline", "ablation", "budget"]

OPTIONS = "student.training.distillation"
"""Where a recipe keeps what distillers are set to."""


@dataclass(frozen=True)
class Row:
    """One way of training the student.

    Attributes:
        name: what tables and files call it.
        group: which table it stands in.
        distillers: their names, or ``("none",)``.
        note: one line for the table: what it is, or what it leaves out.
        overrides: ``dotted.key=value`` assignments to the recipe.
        steps_factor: length of the training, as a multiple of the recipe's.
        curve_points: how often it is scored along the way, on the tune scenes.
        seeds: how many, from 0 on.
        against: the row whose difference is taken, seed by seed.
        also_against: a second such row, for ablations: what the removed part did.
        cache: which teacher cache it reads: ``""`` for the main one, else ``<main cache>-<cache>``.
    """

    name: str
    group: Group
    distillers: tuple[str, ...]
    note: str = ""
    overrides: tuple[str, ...] = ()
    steps_factor: int = 1
    curve_points: int = 0
    seeds: int = 5
    against: str = "none"
    also_against: str = ""
    cache: str = ""


def _matched(share: float, shares: str = "{}") -> tuple[str, ...]:
    """Published weights are for other features and other losses; this brings every distiller to the same say."""
    weighting = f"{OPTIONS}.weighting"
    return f"{weighting}.rule=matched", f"{weighting}.share={share}", f"{weighting}.shares={shares}"


INHERITED_ALONE = "inherited-alone"
INHERITED = f"{OPTIONS}.inherit=true"
WITH_FUSION = f"{OPTIONS}.inherit=[{','.join(PARTS)}]"
ALL = (*_matched(1.5), INHERITED)

CLASS_MAPS = f"{OPTIONS}.unidistill.classes=each"

NO_RELATION = f"{OPTIONS}.tempdistiller.relation_weight=0"
"""Its curve does not fall, and without it velocity and precision come out a little better."""

NOTHING_DISTILLED = (f"{OPTIONS}.fd3d.generation_weight=0", f"{OPTIONS}.fd3d.refinement_weight=0")
"""A run that inherits has to name a distiller; with these ``fd3d`` says nothing."""

TUNED: Mapping[str, tuple[str, ...]] = {
    INHERITED_ALONE: (*ALL, *NOTHING_DISTILLED),
    "feature": ALL,
    "pkd": ALL,
    "fd3d-heatmap": ALL,
    "tempdistiller": (*ALL, NO_RELATION),
    "structured-kd": ALL,
    "fd3d": ALL,
    "unidistill": (*ALL, CLASS_MAPS),
    "temporal-attention": ALL,
    "best": (*_matched(1.0, "{pkd: 2.0}"), WITH_FUSION, CLASS_MAPS),
}
"""Overrides found on the tune scenes, by row. Ablations and the longer budget take over those of their row."""

BEST = ("fd3d", "pkd", "unidistill")
"""The combination chosen on the tune scenes: 26.0 there with seed 100 from the teacher's head, 27.2 with its fusion.
All four published ones but ``structured-kd``, or with ``tempdistiller`` beside these, gave 25.3 to 25.8 from the head;
``pkd`` alone at share 3 gave 25.3."""


def _headline() -> tuple[Row, ...]:
    single = {
        "feature": "FitNets: plain L2 between BEV maps",
        "pkd": "Pearson correlation instead of L2",
        "fd3d-heatmap": "L2 where objects are (the released FD3D baseline)",
        "tempdistiller": "masked reconstruction of a target fused from the teacher's past frames",
        "structured-kd": "spatial and temporal structure, responses, inherited weights",
        "fd3d": "focal generation and refinement at the teacher's queries",
        "unidistill": "features, relations and responses at nine points of each box",
        "temporal-attention": "the teacher's temporal sampling offsets and weights",
    }
    rows = [
        Row("none", "headline", ("none",), "annotations alone"),
        Row(
            INHERITED_ALONE,
            "headline",
            ("fd3d",),
            "starts from the teacher's head as the rows below, and nothing is distilled",
            TUNED[INHERITED_ALONE],
        ),
    ]
    rows += [Row(name, "headline", (name,), note, TUNED[name]) for name, note in single.items()]
    return (*rows, Row("best", "headline", BEST, "the combination chosen on tune", TUNED["best"]))


def _ablations() -> tuple[Row, ...]:
    def ablation(name: str, of: str, note: str, *overrides: str) -> Row:
        distillers = BEST if of == "best" else (of,)
        return Row(name, "ablation", distillers, note, (*TUNED[of], *overrides), seeds=3, also_against=of)

    terms = ("feature", "relation", "response")
    silent = ablation("best-no-losses", "best", "starts as `best`, and nothing is distilled", *NOTHING_DISTILLED)
    return (
        ablation("best-no-fusion", "best", "starts from the teacher's head alone", INHERITED),
        replace(silent, distillers=("fd3d",)),
        ablation(
            "tempdistiller-no-history",
            "tempdistiller",
            "its target is the teacher's one frame, without fusion over time",
            f"{OPTIONS}.tempdistiller.frames=1",
        ),
        ablation(
            "fd3d-no-queries",
            "fd3d",
            "areas are the annotated boxes; no query is read, nothing refined; generation has the share of both",
            f"{OPTIONS}.fd3d.query_source=none",
        ),
        *(
            ablation(
                f"unidistill-{kept}",
                "unidistill",
                f"the {kept} term alone, with the share of all three",
                *(f"{OPTIONS}.unidistill.{term}_weight=0" for term in terms if term != kept),
            )
            for kept in terms
        ),
    )


CACHES: Mapping[str, tuple[str, ...]] = {
    "look-ahead": (
        "cache.features=[bev, temporal_target]",
        "cache.temporal_target.past_frames=3",
        "cache.temporal_target.future_frames=2",
    ),
}
"""Teacher caches beside the main one, and what they are made with."""

LOOK_AHEAD = Row(
    "tempdistiller-look-ahead",
    "ablation",
    ("tempdistiller",),
    "its target has also seen the next two frames",
    (
        *TUNED["tempdistiller"],
        f"{OPTIONS}.tempdistiller.target=temporal_target",
        f"{OPTIONS}.tempdistiller.frames=4",
        f"{OPTIONS}.tempdistiller.future_frames=2",
    ),
    seeds=3,
    also_against="tempdistiller",
    cache="look-ahead",
)
"""A teacher that works offline sees what comes next; one in the training loop could not, cheaply."""


def _budget() -> tuple[Row, ...]:
    def longer(name: str, distillers: tuple[str, ...], overrides: tuple[str, ...]) -> Row:
        note = "three times the steps"
        return Row(name, "budget", distillers, note, overrides, steps_factor=3, curve_points=10, seeds=2)

    return longer("none-3x", ("none",), ()), replace(longer("best-3x", BEST, TUNED["best"]), against="none-3x")


ROWS: tuple[Row, ...] = (*_headline(), *_ablations(), LOOK_AHEAD, *_budget())
"""Everything the study runs."""


def chosen_rows(names: Sequence[str], rows: Sequence[Row] = ROWS) -> tuple[Row, ...]:
    """The rows of these names, in the study's order; all when no name is given.

    Raises:
        RecipeError: a name is unknown.
    """
    known = {row.name for row in rows}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise RecipeError(f"--rows: the study has no row {', '.join(unknown)}; it has {', '.join(sorted(known))}.")
    return tuple(row for row in rows if not names or row.name in names)
