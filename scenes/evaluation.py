"""The official nuScenes detection score, computed by nuscenes-devkit with its configuration of CVPR 2019."""

import contextlib
import io
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.evaluate import NuScenesEval

from scenes.devkit import open_devkit
from scenes.devkit_plots import write_devkit_plots
from scenes.scene_tables import SceneTables
from scenes.score import Score
from scenes.submission import SUBMISSION_FILE, submission_boxes, write_submission
from schemas.boxes import CLASS_NAMES, Boxes
from schemas.errors import DataError

TP_ERRORS: Mapping[str, str] = {
    "trans_err": "mATE",
    "scale_err": "mASE",
    "orient_err": "mAOE",
    "vel_err": "mAVE",
    "attr_err": "mAAE",
}
"""The devkit's names of the true-positive errors, and the papers'."""

_UNDEFINED = {"barrier": ("mAVE", "mAAE"), "traffic_cone": ("mAOE", "mAVE", "mAAE")}


def require_labels(tables: SceneTables, split: str) -> None:
    """Refuse to score a split that has no annotations; worth asking before hours of inference.

    Raises:
        DataError: the version is unlabelled, or has no such split.
    """
    if not tables.has_labels:
        raise DataError(
            f"a score was asked for on split {split!r} of {tables.version}, which has no annotations: nuScenes keeps "
            "those of the test set. Evaluate on the validation split of a labelled version."
        )
    tables.scene_names(split)


def evaluate(
    detections: Mapping[str, Boxes], tables: SceneTables, split: str, out_dir: Path, plots: Path | None = None
) -> Score:
    """Score detections on a split.

    A class without annotations in the split counts as AP 0 and errors 1, as in the devkit: compare subsets only with
    the same subset. No detection in range at all, or no annotation, is a score of zero (the devkit would raise).

    Args:
        detections: scored boxes in the LiDAR frame by sample token; exactly the split's samples.
        tables: the version that the split belongs to; read again through the devkit for its annotations.
        split: a predefined split of the version, or one of its ``splits.json``.
        out_dir: the submission is written here as ``submission.json``.
        plots: folder for the devkit's own plots; None draws none. A score of zero has none.

    Raises:
        DataError: the split has no annotations, the samples are not the split's, or a detection is not finite.
    """
    require_labels(tables, split)
    tokens = [token for name in tables.scene_names(split) for token in tables.sample_tokens(name)]
    _check_samples(detections, tokens, split)
    frames = [tables.frame(token) for token in tokens]
    results = {frame.sample_token: submission_boxes(frame, detections[frame.sample_token]) for frame in frames}
    write_submission(out_dir / SUBMISSION_FILE, results)
    if not any(results.values()) or not any(frame.boxes for frame in frames):
        return _zero_score(split, len(tokens))
    return score_submission(out_dir / SUBMISSION_FILE, tables, split, plots)


def score_submission(path: Path, tables: SceneTables, split: str, plots: Path | None = None) -> Score:
    """Score a submission file as it stands.

    Args:
        path: JSON in the form of the nuScenes detection task, with at least one box.
        tables: the version that the split belongs to.
        split: exactly the samples of the file.
        plots: folder for the devkit's own plots; None draws none.

    Raises:
        DataError: the version's tables cannot be read, or the split has no annotations.
        OSError: the folder of plots cannot be written.
    """
    require_labels(tables, split)
    # The devkit shows progress bars and prints whatever it is told; nobody asked for them here.
    silence = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as unused,  # the devkit insists on making a folder of PDF plots
        contextlib.redirect_stdout(silence),
        contextlib.redirect_stderr(silence),
    ):
        evaluation = NuScenesEval(
            open_devkit(tables.data_root, tables.version),
            config=config_factory("detection_cvpr_2019"),
            result_path=str(path),
            eval_set=split,
            output_dir=unused,
            verbose=False,
        )
        metrics, curves = evaluation.evaluate()
        if plots is not None:
            write_devkit_plots(evaluation.cfg, metrics, curves, plots)
    return _score(metrics.serialize(), split, len(evaluation.sample_tokens))


def as_detections(annotations: Boxes) -> Boxes:
    """Annotations as detections of score 1: perfect but for their attributes, which class and speed must tell."""
    return replace(annotations, scores=np.ones(len(annotations)))


def _check_samples(detections: Mapping[str, Boxes], tokens: list[str], split: str) -> None:
    missing, extra = set(tokens) - detections.keys(), detections.keys() - set(tokens)
    if missing or extra:
        examples = ", ".join(sorted(missing or extra)[:3])
        raise DataError(
            f"the official score of split {split!r} needs detections for exactly its {len(tokens)} samples: "
            f"{len(missing)} are missing and {len(extra)} are not of this split ({examples}). Run the detector on the "
            "whole split, or list the scenes wanted as a split of their own in splits.json."
        )


def _score(summary: Mapping[str, Any], split: str, samples: int) -> Score:
    return Score(
        nds=float(summary["nd_score"]),
        mean_ap=float(summary["mean_ap"]),
        tp_errors={ours: float(summary["tp_errors"][theirs]) for theirs, ours in TP_ERRORS.items()},
        class_ap={name: float(summary["mean_dist_aps"][name]) for name in CLASS_NAMES},
        class_tp_errors={
            name: {ours: float(summary["label_tp_errors"][name][theirs]) for theirs, ours in TP_ERRORS.items()}
            for name in CLASS_NAMES
        },
        split=split,
        samples=samples,
    )


def _zero_score(split: str, samples: int) -> Score:
    def errors(name: str) -> dict[str, float]:
        undefined = _UNDEFINED.get(name, ())
        return {error: float("nan") if error in undefined else 1.0 for error in TP_ERRORS.values()}

    return Score(
        nds=0.0,
        mean_ap=0.0,
        tp_errors=dict.fromkeys(TP_ERRORS.values(), 1.0),
        class_ap=dict.fromkeys(CLASS_NAMES, 0.0),
        class_tp_errors={name: errors(name) for name in CLASS_NAMES},
        split=split,
        samples=samples,
    )
