"""A student that starts from its teacher's head: parameters read from the cache, no teacher network built.

A transformer detector learns its queries and positions as tables that mean nothing to another network, so teacher and
student see inconsistent inputs and their features differ for reasons that no loss explains. A student that starts from
the teacher's tables does not have to guess them. Source: weight inheriting in Structured Knowledge Distillation
(Zhang et al., arXiv:2211.08398), of which only the abstract could be read; FD3D's and DistillBEV's released codes copy
the teacher's head too, which is where ``HEAD_PARTS`` come from. ``history_fusion`` is ours: the block that lays the
previous map beneath the present one (``detectors/history_fusion.py``) is small, and most of what a teacher knows about
velocity is how to read its memory.

Decided here:

* Everything inherited is trained on. Learned object queries alone are held where a loss compares them by number.
* BEV queries and position tables are brought to the student's grid as any map is: area average where cells grow, linear
  interpolation where they shrink. All else must have the teacher's shape; nothing is cut, padded or skipped.
* ``history_fusion`` convolves cells, so it means the same only to a student whose cells are as large.
* It happens once, before the first step; a resumed run has its parameters from its checkpoint.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cache.reading import Cache
from detectors.bevformer import BEVFormer
from detectors.config import BEVFormerConfig
from schemas.errors import CacheError, RecipeError
from train.adapters import resize_bev

InheritedPart = Literal["bev_queries", "positions", "history_fusion", "object_queries", "decoder", "branches"]

HEAD = "pts_bbox_head."
BEV_QUERIES = f"{HEAD}bev_embedding.weight"
ROW_TABLE = f"{HEAD}positional_encoding.row_embed.weight"
COL_TABLE = f"{HEAD}positional_encoding.col_embed.weight"
OBJECT_QUERIES = f"{HEAD}query_embedding.weight"
PARTS: Mapping[InheritedPart, tuple[str, ...]] = {
    "bev_queries": (BEV_QUERIES,),
    "positions": (ROW_TABLE, COL_TABLE),
    "history_fusion": (f"{HEAD}transformer.encoder.history_fusion.",),
    "object_queries": (OBJECT_QUERIES, f"{HEAD}transformer.reference_points.", f"{HEAD}heatmap_queries."),
    "decoder": (f"{HEAD}transformer.decoder.",),
    "branches": (f"{HEAD}cls_branches.", f"{HEAD}reg_branches."),
}
"""How the names of each part's tensors begin, under the published names."""

HEAD_PARTS: tuple[InheritedPart, ...] = ("bev_queries", "positions", "object_queries", "decoder", "branches")
"""What ``inherit=true`` stands for; ``history_fusion`` is asked for by name."""

_OPTION = "student.training.distillation.inherit"


@dataclass(frozen=True)
class Inheritance:
    """What a student was given; written beside the run's output.

    Attributes:
        teacher: whose parameters they are.
        weights_sha256: of that teacher's weights.
        parts: what was asked for.
        copied: tensors taken as they are.
        resized: tensors brought to the student's grid.
    """

    teacher: str
    weights_sha256: str
    parts: tuple[InheritedPart, ...]
    copied: tuple[str, ...]
    resized: tuple[str, ...]

    def as_json(self) -> str:
        """Indented, with a line's end."""
        return json.dumps(asdict(self), indent=2) + "\n"


def inherit(detector: BEVFormer, cache: Cache, parts: tuple[InheritedPart, ...]) -> Inheritance:
    """Give a student, in place, these parts of the teacher whose cache this is.

    Raises:
        CacheError: the cache holds no parameters, or they are damaged.
        RecipeError: a tensor is one side's alone, has another shape, belongs to other classes or attention heads.
    """
    teacher = cache.manifest.teacher
    try:
        theirs = cache.parameters()
    except CacheError as error:
        raise CacheError(f"{error}. A student needs none with --set {_OPTION}=false") from error
    ours = detector.state_dict()
    if cache.manifest.class_names != detector.config.class_names:
        raise RecipeError(
            f"a student inherits class logits by their order: the teacher's classes are {cache.manifest.class_names}, "
            f"the student's {detector.config.class_names}. Give it the teacher's, or --set {_OPTION}=false"
        )
    if "decoder" in parts:
        _check_heads(teacher.architecture, detector.config)
    wanted = {part: _names(part, ours, theirs) for part in parts}
    given = {name: _fitted(name, ours[name], theirs, detector.config) for names in wanted.values() for name in names}
    with torch.no_grad():
        for name, values in given.items():
            ours[name].copy_(values)
    resized = tuple(name for name in given if theirs[name].shape != tuple(ours[name].shape))
    return Inheritance(
        teacher.name, teacher.weights_sha256, parts, tuple(name for name in given if name not in resized), resized
    )


def hold_object_queries(detector: BEVFormer) -> None:
    """Take the learned object queries out of training, so that the one of a number stays the teacher's."""
    detector.pts_bbox_head.query_embedding.requires_grad_(requires_grad=False)


def _names(part: InheritedPart, ours: Mapping[str, Tensor], theirs: Mapping[str, NDArray[Any]]) -> list[str]:
    """Tensors of a part, which both must have."""
    names = sorted(name for name in {*ours, *theirs} if name.startswith(PARTS[part]))
    if not names:
        raise RecipeError(
            f"the student cannot inherit {part}: neither it nor the teacher whose cache this is has any. Leave {part} "
            f"out of --set {_OPTION}=[...]"
        )
    for name in names:
        if name not in ours or name not in theirs:
            holder, lacking = ("teacher", "student") if name in theirs else ("student", "teacher")
            raise RecipeError(
                f"the student cannot inherit {part}: {name} is the {holder}'s, and the {lacking} has no such tensor. "
                "Give the student a head like the teacher's (student.detector.decoder, student.detector.head; for "
                "the fusion student.detector.encoder.history_fusion), or "
                f"leave {part} out of --set {_OPTION}=[...]; what an older program left out of a cache, the make "
                "cache-teacher command that filled it adds"
            )
    return names


def _fitted(
    name: str, mine: Tensor, theirs: Mapping[str, NDArray[Any]], config: BEVFormerConfig
) -> Float[Tensor, "*shape"]:
    """A teacher's tensor in the shape of the student's."""
    values = torch.from_numpy(np.array(theirs[name], dtype=np.float32))
    if name == BEV_QUERIES and values.ndim == 2 and values.shape[1] == mine.shape[1]:
        values = _on_grid(values, _teachers_grid(theirs), config.grid.shape)
    elif name in (ROW_TABLE, COL_TABLE) and values.ndim == 2 and values.shape[1] == mine.shape[1]:
        values = _on_grid(values, (len(values), 1), (len(mine), 1))
    if values.shape != mine.shape:
        raise RecipeError(
            f"the student cannot inherit {name}: it has the shape {list(values.shape)} in the teacher and "
            f"{list(mine.shape)} in the student. Give the student the teacher's channels, queries and decoder "
            "(student.detector.embed_dims, student.detector.decoder), or leave that part out of "
            f"--set {_OPTION}=[...]; parts are {', '.join(PARTS)}"
        )
    return values


def _on_grid(
    table: Float[Tensor, "old channel"], old: tuple[int, int], new: tuple[int, int]
) -> Float[Tensor, "new channel"]:
    """A table with one row per cell, row-major, for another grid over the same ground."""
    bev = table.reshape(1, *old, -1).permute(0, 3, 1, 2)
    return resize_bev(bev, new).permute(0, 2, 3, 1).flatten(0, 2)


def _teachers_grid(theirs: Mapping[str, NDArray[Any]]) -> tuple[int, int]:
    """The grid of the teacher's BEV queries; a cache's own grid may be a coarser one."""
    grid = tuple(len(theirs[table]) if table in theirs else 0 for table in (ROW_TABLE, COL_TABLE))
    cells = len(theirs[BEV_QUERIES])
    if grid[0] * grid[1] != cells:
        raise CacheError(
            f"the teacher's {BEV_QUERIES} has {cells} rows, its position tables {ROW_TABLE} and {COL_TABLE} "
            f"{grid[0]} and {grid[1]}: expected one row per cell. Leave bev_queries out of --set {_OPTION}=[...]"
        )
    return grid[0], grid[1]


def _check_heads(architecture: str, config: BEVFormerConfig) -> None:
    """Heads and points share one tensor's rows, so its shape cannot tell 4 × 8 from 8 × 4."""
    try:
        decoder = json.loads(architecture)["decoder"]
        theirs = {key: decoder[key] for key in ("heads", "points")}
    except (ValueError, KeyError, TypeError):  # a teacher of another make; its tensors' names and shapes must do
        return
    for key, value in theirs.items():
        mine = getattr(config.decoder, key)
        if value != mine:
            raise RecipeError(
                f"the student cannot inherit the decoder: its attention has {mine} {key}, the teacher's {value}. "
                f"--set student.detector.decoder.{key}={value}, or leave decoder out of --set {_OPTION}=[...]"
            )
