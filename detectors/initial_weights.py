"""Weights that a training starts from: parts of a whole detector's file, or a backbone that has learnt something else.

Nothing fits by chance here. What is asked for must be in the file, whole and in the detector's shapes, or the file is
refused with the names of what differs; what the file has beside it is left alone, and told.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from detectors.weights import LoadReport, compare, copy_entries
from detectors.weights_file import read_weights_file
from schemas.errors import CheckpointError

BACKBONE_PREFIXES = ("img_backbone.", "backbone.")
"""What whole detectors call their image backbone: BEVFormer's family, and mmdetection's."""

_ADDED_LATER = ".conv_offset."
"""Deformable convolutions are put into a backbone that was trained without: their offsets start at zero, as
published."""


def load_parts(model: nn.Module, path: Path, parts: tuple[str, ...]) -> LoadReport:
    """Fill parts of a model from the file of a whole one.

    Args:
        model: changed in place, and only if the file is accepted.
        path: as ``load_weights``.
        parts: how the names of the wanted entries begin, in whole words: ``img_backbone`` or
            ``pts_bbox_head.transformer``.

    Raises:
        CheckpointError: the file cannot be read, a part is none of the model's, or an entry of one is missing, of
            another shape or not finite.
    """
    state, entries = model.state_dict(), read_weights_file(path)
    for part in parts:
        if not _within(state, (part,)):
            known = ", ".join(name for name, _ in model.named_children())
            raise CheckpointError(f"the detector has no part {part!r} that {path} could give it; its parts are {known}")
    advice = "Ask for fewer parts (student.training.init.parts), or give the detector the file's sizes"
    return _load_whole(_within(state, parts), entries, path, advice)


def load_backbone(backbone: nn.Module, path: Path) -> LoadReport:
    """Fill an image backbone from a classification network's file, or from a detector's with the same backbone.

    Names are those of torchvision and of mmcv, which agree; a classifier's last layer is left in the file. A file does
    not tell whether its network has the stride of a stage in the 1×1 convolution (caffe) or in the 3×3 (torchvision),
    nor which colours it was trained on: these must be the detector's own.

    Args:
        backbone: changed in place, and only if the file is accepted. Batch norm's statistics are filled too, the
            offsets of deformable convolutions only where the file has them.
        path: as ``load_weights``.

    Raises:
        CheckpointError: the file cannot be read, or an entry is missing, of another shape or not finite.
    """
    entries = read_weights_file(path)
    for prefix in BACKBONE_PREFIXES:
        if any(name.startswith(prefix) for name in entries):
            entries = {name.removeprefix(prefix): entry for name, entry in entries.items() if name.startswith(prefix)}
            break
    state = backbone.state_dict()
    wanted = {name: entry for name, entry in state.items() if name in entries or _ADDED_LATER not in name}
    advice = "Give a file of the same network, or change student.detector.backbone (depth, style) to the file's"
    return _load_whole(wanted, entries, path, advice)


def _within(entries: Mapping[str, Tensor], parts: tuple[str, ...]) -> dict[str, Tensor]:
    prefixes = tuple(f"{part}." for part in parts)
    return {name: entry for name, entry in entries.items() if name in parts or name.startswith(prefixes)}


def _load_whole(state: Mapping[str, Tensor], entries: Mapping[str, Tensor], path: Path, advice: str) -> LoadReport:
    """Fill every entry of ``state``, or refuse."""
    report = compare(state, entries, path)
    if report.missing or report.reshaped:
        raise CheckpointError(f"The weights do not fit what they shall start.\n{report}\n{advice}.")
    copy_entries(state, entries, report.matched, path)
    return report
