"""Whole pictures of a frame: cameras beside the BEV, temporal attention, queries, and all of them on one sheet."""

from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.lines import Line2D

from pipeline.pictures import attention_drawing, box_drawing
from pipeline.pictures.attention import CURRENT, PREVIOUS, CellSamples, ChosenCell, cell_samples, choose_cells
from pipeline.pictures.cameras import CAMERA_LAYOUT, draw_camera
from pipeline.pictures.canvas import Canvas
from pipeline.pictures.frame_contents import FrameContents, SceneContents
from pipeline.pictures.map_axes import draw_map, draw_scale_bar, label_axes
from pipeline.pictures.options import PictureOptions
from pipeline.pictures.query_drawing import draw_queries, score_colors

_CAMERA_IN = (3.5, 1.97)
_TOP_IN = 0.62
_ROW_IN = _CAMERA_IN[1] + 0.24
_CAMERAS_IN = 0.1 + 3 * (_CAMERA_IN[0] + 0.06)
_MAP_IN = _ROW_IN + _CAMERA_IN[1]
_WIDTH_IN = _CAMERAS_IN + 0.5 + _MAP_IN + 0.15
_CAMERA_BLOCK_IN = _TOP_IN + _MAP_IN + 0.36
_PANEL_IN = 2.52
_PANEL_BLOCK_IN = 0.3 + _PANEL_IN + 0.72
_LEGEND = {"facecolor": "0.62", "edgecolor": "none", "fancybox": False, "fontsize": 7.5, "borderaxespad": 0.0}


@dataclass(frozen=True, eq=False)
class Artist:
    """Draws the frames of one scene.

    Attributes:
        scene: what there is to draw.
        data_root: where the images are.
        options: what a person chose.
        title: begins every heading, e.g. the teacher's name.
        score_colors: colours of query scores, the same in all frames; None where there are no queries.
    """

    scene: SceneContents
    data_root: Path
    options: PictureOptions
    title: str
    score_colors: ScalarMappable | None

    def boxes(self, step: int) -> Canvas:
        """Six cameras with boxes, and the BEV feature under the same boxes."""
        canvas = Canvas(_WIDTH_IN, _CAMERA_BLOCK_IN)
        self._cameras_and_map(canvas, step)
        return canvas

    def sheet(self, step: int) -> Canvas:
        """Everything there is to show of a frame."""
        kinds = self.scene.kinds & {"queries", "attention"}
        canvas = Canvas(_WIDTH_IN, _CAMERA_BLOCK_IN + (_PANEL_BLOCK_IN if kinds else 0.0))
        self._cameras_and_map(canvas, step)
        top = _CAMERA_BLOCK_IN + 0.3
        left = 0.5
        if self.score_colors is not None:
            axes = canvas.axes(left, top, _PANEL_IN, _PANEL_IN)
            self._queries(canvas, axes, step, large=False)
            left += _PANEL_IN + 0.85
        if "attention" in kinds:
            for cell, samples in self._cells(step)[:2]:
                self._attention(canvas, step, (cell, samples), (left, top, _PANEL_IN))
                left += 2 * (_PANEL_IN + 0.36) + 0.06
            self._legend(canvas, attention_drawing.legend_handles(self._heads(step)), top + _PANEL_IN + 0.5)
        return canvas

    def attention(self, step: int) -> Canvas:
        """Where temporal attention looks, one row for each chosen cell."""
        cells, side = self._cells(step), 4.0
        canvas = Canvas(2 * side + 1.15, 0.5 + len(cells) * (side + 0.62) + 0.35)
        canvas.text(0.15, 0.2, self._heading(step) + ", temporal self-attention", 10.0, bold=True)
        for number, (cell, samples) in enumerate(cells):
            top = 0.7 + number * (side + 0.62)
            self._attention(canvas, step, (cell, samples), (0.6, top, side))
        self._legend(canvas, attention_drawing.legend_handles(self._heads(step)), canvas.height_in - 0.2)
        return canvas

    def queries(self, step: int) -> Canvas:
        """Reference points of all queries, before and after the decoder."""
        canvas = Canvas(6.6, 6.3)
        canvas.text(0.15, 0.2, self._heading(step) + ", object queries", 10.0, bold=True)
        self._queries(canvas, canvas.axes(0.55, 0.62, 5.2, 5.2), step, large=True)
        return canvas

    def _cameras_and_map(self, canvas: Canvas, step: int) -> None:
        contents = self.scene.read(step)
        canvas.text(0.12, 0.2, self._heading(step), 11.0, bold=True)
        for row, names in enumerate(CAMERA_LAYOUT):
            for column, name in enumerate(names):
                place = (0.1 + column * (_CAMERA_IN[0] + 0.06), _TOP_IN + row * _ROW_IN)
                draw_camera(canvas.axes(*place, *_CAMERA_IN), contents, name, self.data_root)
        axes = canvas.axes(_CAMERAS_IN + 0.5, _TOP_IN, _MAP_IN, _MAP_IN)
        draw_map(axes, contents.bev_rgb, self.scene.grid)
        box_drawing.draw_both_on_map(axes, contents)
        draw_scale_bar(axes)
        label_axes(axes)
        feature = "" if contents.bev_rgb is None else "BEV feature, three main directions as colours"
        axes.set_title(feature, fontsize=7.5, pad=2.5)
        handles = box_drawing.legend_handles(contents, self.options.min_score)
        if handles:
            anchor = (1 - 0.15 / canvas.width_in, 1 - 0.1 / canvas.height_in)
            canvas.figure.legend(handles=handles, loc="upper right", bbox_to_anchor=anchor, ncols=2, **_LEGEND)

    def _queries(self, canvas: Canvas, axes: Axes, step: int, *, large: bool) -> None:
        assert self.score_colors is not None, "the caller asks only where there are queries"
        draw_queries(axes, self.scene.read(step), self.scene.grid, self.score_colors, large=large)
        axes.set_title("queries: white where they start, coloured where they end", fontsize=7.5, pad=3)
        if large:
            label_axes(axes)
        bar_axes = axes.inset_axes((1.02, 0.0, 0.035, 1.0))
        bar = canvas.figure.colorbar(self.score_colors, cax=bar_axes)
        bar.set_label("score of the best class", fontsize=7, labelpad=1)
        bar.ax.tick_params(labelsize=6.5, length=2, pad=1.5)

    def _attention(
        self,
        canvas: Canvas,
        step: int,
        chosen: tuple[ChosenCell, CellSamples],
        place_in: tuple[float, float, float],
    ) -> None:
        """The previous and the current map of one cell; ``place_in`` is left, top and side of the first."""
        (cell, samples), (left, top, side) = chosen, place_in
        current = self.scene.read(step)
        previous = self.scene.read(step - 1) if self._has_previous(current) else current
        half_m = attention_drawing.window_m(samples, self.scene.grid)
        for source, contents in ((PREVIOUS, previous), (CURRENT, current)):
            axes = canvas.axes(left + source * (side + 0.36), top, side, side)
            attention_drawing.draw_source(axes, contents, samples, source, self.scene.grid, half_m)
            axes.set_title(self._map_name(source, current), fontsize=7.5, pad=3)
        canvas.text(left, top - 0.26, f"{cell.reason}; cell ({cell.row}, {cell.col})", 7.5, bold=True)

    def _cells(self, step: int) -> list[tuple[ChosenCell, CellSamples]]:
        contents, grid = self.scene.read(step), self.scene.grid
        assert contents.temporal is not None, "the caller asks only where there is temporal attention"
        cells = choose_cells(contents, grid, self.options.cells)
        return [(cell, cell_samples(contents.temporal, cell.row, cell.col, grid)) for cell in cells]

    def _heads(self, step: int) -> int:
        temporal = self.scene.read(step).temporal
        assert temporal is not None, "the caller asks only where there is temporal attention"
        return temporal.weights.shape[2]

    def _heading(self, step: int) -> str:
        frame = self.scene.frames[step]
        return f"{self.title}: {frame.scene_name}, frame {frame.step}"

    @staticmethod
    def _has_previous(current: FrameContents) -> bool:
        return current.temporal is not None and current.temporal.previous_from_current is not None

    def _map_name(self, source: int, current: FrameContents) -> str:
        if source == CURRENT:
            return "current map"
        return "previous map" if self._has_previous(current) else "no previous map: the current one again"

    @staticmethod
    def _legend(canvas: Canvas, handles: list[Line2D], center_in: float) -> None:
        anchor = (0.5, 1 - center_in / canvas.height_in)
        columns = len(handles) if canvas.width_in > 12 else -(-len(handles) // 2)
        canvas.figure.legend(handles=handles, loc="center", bbox_to_anchor=anchor, ncols=columns, **_LEGEND)


def artist_of(scene: SceneContents, data_root: Path, options: PictureOptions, title: str) -> Artist:
    """An artist for one scene."""
    colors = score_colors(scene.top_score()) if "queries" in scene.kinds else None
    return Artist(scene, data_root, options, title, colors)
