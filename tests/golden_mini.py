"""Runs the small golden detector head exactly as the official code was run, and names its tensors the same way.

The official code is wrong for batches of several samples: it hands sample i the i-th entry of an interleaved list of
BEVs. Ours is right; ``official_batch_slip`` reproduces the slip from outside, for case 4.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detectors import decoder, spatial_cross_attention, temporal_self_attention
from detectors.config import BEVFormerConfig, DecoderConfig, EncoderConfig, FPNConfig
from detectors.deformable_sampling import sample_deformable
from detectors.ego_motion import YAW_DEG, BevHistory, map_shift, rotate_bev
from detectors.head import BEVFormerHead
from detectors.outputs import QueryOutputs
from detectors.reference_points import pillar_points_m, project_to_cameras
from detectors.spatial_cross_attention import CameraFeatures
from schemas.bev_grid import BevGrid
from schemas.preprocessing import Preprocessing
from tests.golden_recipe import fill_module, load_golden, tensor

Arrays = dict[str, NDArray[np.generic]]
GOLDEN_MINI = load_golden("bevformer_mini.npz")
IMAGE_HW = (96, 160)


@dataclass(frozen=True)
class Case:
    """One golden run: whose images, cameras, motion and history."""

    frames: tuple[int, ...]
    cameras: tuple[int, ...]
    can_bus: tuple[int, ...]
    rotate_center: tuple[float, float] = (6.0, 5.0)
    shift_both_references: bool = False
    has_history: bool = True


CASES = (
    Case(frames=(0,), cameras=(0,), can_bus=(0,), has_history=False),
    Case(frames=(1,), cameras=(1,), can_bus=(1,)),
    Case(frames=(1,), cameras=(1,), can_bus=(2,), rotate_center=(100.0, 100.0)),
    Case(frames=(1,), cameras=(1,), can_bus=(1,), shift_both_references=True),
    Case(frames=(1, 0), cameras=(1, 1), can_bus=(1, 2)),
)


def mini_config(case: Case = CASES[0]) -> BEVFormerConfig:
    """The golden configuration; not square, so that swapped axes show."""
    return BEVFormerConfig(
        embed_dims=32,
        neck=FPNConfig(out_channels=32),
        encoder=EncoderConfig(
            layers=3,
            ffn_channels=64,
            rotate_center=case.rotate_center,
            shift_both_references=case.shift_both_references,
        ),
        decoder=DecoderConfig(layers=2, queries=50, ffn_channels=64),
        grid=BevGrid(rows=10, cols=12, extent_m=(-51.2, -40.96, -5, 51.2, 40.96, 3)),
        preprocessing=Preprocessing(color_order="bgr", mean=(103.53, 116.28, 123.675), std=(1, 1, 1)),
    )


def mini_head(config: BEVFormerConfig) -> BEVFormerHead:
    """The head with the golden weights, in evaluation mode."""
    head = BEVFormerHead(config).eval()
    fill_module(head, "pts_bbox_head.")
    return head


def cameras_of(case: Case) -> CameraFeatures:
    """Image features and geometry of a case."""
    maps = tuple(
        torch.cat([torch.from_numpy(GOLDEN_MINI[f"frame{frame}_feat{level}"]) for frame in case.frames])
        for level in range(4)
    )
    image_from_lidar = np.stack([GOLDEN_MINI[f"l2i{camera}"] for camera in case.cameras])
    return CameraFeatures(maps, torch.from_numpy(image_from_lidar).float(), IMAGE_HW)


def can_bus_of(case: Case) -> Tensor:
    """CAN-bus vectors as they enter the transformer: differences already taken."""
    return torch.from_numpy(np.stack([GOLDEN_MINI[f"can_bus_case{number}"] for number in case.can_bus]))


def history_of(case: Case) -> BevHistory | None:
    """The previous BEV of a case: case 0's result, and noise for a second sample."""
    if not case.has_history:
        return None
    previous = torch.from_numpy(GOLDEN_MINI["case0_bev_embed"]).transpose(0, 1)
    if len(case.frames) == 2:
        previous = torch.cat([previous, tensor("case4.prev1", (120, 1, 32)).transpose(0, 1)])
    grid, can_bus = mini_config(case).grid, can_bus_of(case)
    return BevHistory(
        bev=rotate_bev(previous, can_bus[:, YAW_DEG], grid, case.rotate_center),
        shift=map_shift(can_bus, grid),
        present=torch.ones(len(case.frames), dtype=torch.bool),
        unturned=previous,
        turned_deg=can_bus[:, YAW_DEG],
    )


@torch.no_grad()
def run_case(number: int) -> Arrays:
    """Every golden tensor of a case, by its golden name without ``caseN_``."""
    case = CASES[number]
    head = mini_head(mini_config(case))
    cameras, history = cameras_of(case), history_of(case)
    layers = [_outputs_of(layer) for layer in head.transformer.encoder.layers]
    temporal, spatial, objects = Recorder(), Recorder(), Recorder()
    with (
        patch.object(temporal_self_attention, "sample_deformable", temporal),
        patch.object(spatial_cross_attention, "sample_deformable", spatial),
        patch.object(decoder, "sample_deformable", objects),
        official_batch_slip(head, len(case.frames)),
    ):
        bev, _ = head.encode(cameras, can_bus_of(case), history)
        queries, _ = head.detect(bev)
    named = {"bev_embed": bev.transpose(0, 1), "enc_layers": torch.stack([outputs[0][0] for outputs in layers])}
    named |= _query_tensors(queries) | _camera_tensors(head, cameras)
    named |= {"tsa_loc": temporal.by_source(0), "tsa_w": temporal.by_source(1)}
    named |= {"dec_loc": torch.stack(objects.locations), "dec_w": torch.stack(objects.weights)}
    named |= {"sca_loc_layer0": _padded(spatial.locations[:6]), "sca_w_layer0": _padded(spatial.weights[:6])}
    if history is not None:
        named["prev_bev_rotated"] = history.bev.transpose(0, 1)
    return {name: values.numpy() for name, values in named.items()}


class Recorder:
    """Stands in for ``sample_deformable`` and notes what it was asked for."""

    def __init__(self) -> None:
        self.locations: list[Tensor] = []
        self.weights: list[Tensor] = []

    def __call__(self, maps: list[Tensor], locations: Tensor, weights: Tensor) -> Tensor:
        self.locations.append(locations)
        self.weights.append(weights)
        return sample_deformable(maps, locations, weights)

    def by_source(self, which: int) -> Tensor:
        """Temporal attention's calls alternate between previous and current: (layer, batch × source, ...)."""
        calls = torch.stack((self.locations, self.weights)[which])
        return calls.unflatten(0, (-1, 2)).transpose(1, 2).flatten(1, 2)


@contextmanager
def official_batch_slip(head: BEVFormerHead, batch: int) -> Iterator[None]:
    """Give temporal attention's queries what the official code gives: entry i of [previous 0, current 0, previous 1].

    For one sample that is its previous BEV, so nothing changes.
    """
    if batch == 1:
        yield
        return
    seen: dict[str, Tensor] = {}
    encoder = head.transformer.encoder
    hooks = [encoder.register_forward_pre_hook(lambda _, inputs: seen.update(current=inputs[0]))]

    def slip(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        previous, present = inputs[0].chunk(2, dim=-1)
        interleaved = torch.stack([previous, seen["current"]], dim=1).flatten(0, 1)
        return (torch.cat([interleaved[:batch], present], dim=-1),)

    for layer in encoder.layers:
        linears = (layer.attentions[0].sampling_offsets, layer.attentions[0].attention_weights)
        hooks.extend(linear.register_forward_pre_hook(slip) for linear in linears)
    yield
    for hook in hooks:
        hook.remove()


def golden_queries(number: int) -> QueryOutputs:
    """The official outputs of a case, to test losses and decoding by themselves."""
    arrays = {name: torch.tensor(GOLDEN_MINI[f"case{number}_{name}"]) for name in ("hs", "cls", "bbox")}
    positions = torch.cat(
        [
            torch.from_numpy(GOLDEN_MINI[f"case{number}_init_ref"])[None],
            torch.from_numpy(GOLDEN_MINI[f"case{number}_inter_ref"]),
        ]
    )
    return QueryOutputs(arrays["hs"].transpose(1, 2), positions, arrays["cls"], arrays["bbox"])


def _outputs_of(module: nn.Module) -> list[tuple[Tensor, ...]]:
    outputs: list[tuple[Tensor, ...]] = []
    keep: Callable[..., None] = lambda _module, _inputs, output: outputs.append(output)  # noqa: E731
    module.register_forward_hook(keep)
    return outputs


def _query_tensors(queries: QueryOutputs) -> dict[str, Tensor]:
    return {
        "hs": queries.features.transpose(1, 2),
        "init_ref": queries.positions[0],
        "inter_ref": queries.positions[1:],
        "cls": queries.logits,
        "bbox": queries.boxes,
    }


def _camera_tensors(head: BEVFormerHead, cameras: CameraFeatures) -> dict[str, Tensor]:
    points = pillar_points_m(head.grid, 4, torch.device("cpu"))
    locations, mask = project_to_cameras(points, cameras.image_from_lidar, cameras.image_hw)
    return {"ref_cam": locations.transpose(0, 1), "bev_mask": mask.transpose(0, 1)}


def _padded(calls: list[Tensor]) -> Tensor:
    """Six cameras' (1, visible, ...) as (6, most visible, ...), zero beyond each camera's own."""
    longest = max(call.shape[1] for call in calls)
    padded = torch.zeros(len(calls), longest, *calls[0].shape[2:])
    for camera, call in enumerate(calls):
        padded[camera, : call.shape[1]] = call[0]
    return padded
