"""nuscenes-devkit's own plots of an evaluation, drawn by its functions, as PNG files.

The devkit's ``NuScenesEval.render`` calls the same functions, but writes PDF files only, draws with whatever backend
pyplot finds (a window system's, on a desktop), and warns where an error is zero for a whole class.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from nuscenes.eval.detection.render import class_pr_curve, class_tp_curve, dist_pr_curve, summary_plot


def write_devkit_plots(config: Any, metrics: Any, curves: Any, folder: Path) -> None:
    """Write ``summary.png``, ``dist_pr_<metres>.png``, and ``<class>_pr.png`` and ``<class>_tp.png`` of each class.

    Args:
        config: the devkit's ``DetectionConfig``.
        metrics: the ``DetectionMetrics`` that its evaluation returned.
        curves: the ``DetectionMetricDataList`` that its evaluation returned.
        folder: for the files; made if need be.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bounds = (config.min_precision, config.min_recall)
    with _drawing_to_files():
        summary_plot(curves, metrics, *bounds, config.dist_th_tp, savepath=str(folder / "summary.png"))
        for name in config.class_names:
            plt.figure()  # these two draw into the current figure, whosever it is, and close it
            class_pr_curve(curves, metrics, name, *bounds, savepath=str(folder / f"{name}_pr.png"))
            plt.figure()
            path = str(folder / f"{name}_tp.png")
            class_tp_curve(curves, metrics, name, config.min_recall, config.dist_th_tp, savepath=path)
        for distance_m in config.dist_ths:
            dist_pr_curve(curves, metrics, distance_m, *bounds, savepath=str(folder / f"dist_pr_{distance_m}.png"))


@contextmanager
def _drawing_to_files() -> Iterator[None]:
    """Draw without windows; the caller's backend and settings are put back."""
    backend = plt.get_backend()
    plt.switch_backend("agg")
    try:
        # The devkit's labels are too large for the usual margins: they would be cut off but for "tight".
        style = plt.rc_context({"figure.figsize": (6.4, 4.8), "savefig.dpi": 80, "savefig.bbox": "tight"})
        with style, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Attempting to set identical low and high ylims")
            yield
    finally:
        plt.switch_backend(backend)
