"""Time and memory of one frame of a BEVFormer, stage by stage, on synthetic input of the full size.

    python -m benchmarks.base_forward                                  # Base, this machine's processor
    python -m benchmarks.base_forward --threads 1 2 --precision float32 bfloat16
    python -m benchmarks.base_forward --device cuda --precision float32 bfloat16 float16

Each row of settings runs in a process of its own: a first frame to warm up, then ``--repeats`` frames with history. The
rig is nuScenes-like, so about as many cells see a camera as on real frames. Prints a Markdown table.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch import nn

from benchmarks.machine import peak_resident_mb
from detectors.bevformer import BEVFormer
from detectors.catalogue import DETECTORS, build
from detectors.inputs import CameraBatch
from schemas.frames import CAMERAS

CAMERA_YAWS_DEG = (0.0, -55.0, 55.0, 180.0, 110.0, -110.0)
"""Counter-clockwise from straight ahead, in the order of ``CAMERAS``."""

FOCAL_PX = (1260.0, 1260.0, 1260.0, 800.0, 1260.0, 1260.0)
ORIGINAL_WH = (1600, 900)
WHOLE = "whole frame"


class StageMeter:
    """Seconds per frame and peak memory of the modules it watches."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.peak_mb: dict[str, float] = defaultdict(float)
        self._running: dict[str, float] = {}

    def watch(self, stage: str, module: nn.Module) -> None:
        """Count all calls of a module towards a stage."""
        module.register_forward_pre_hook(lambda *_: self.start(stage))
        module.register_forward_hook(lambda *_: self.stop(stage))

    def start(self, stage: str) -> None:
        """A stage begins."""
        self._note_peak(stage="")
        self._reset_peak()
        self._running[stage] = self._now()

    def stop(self, stage: str) -> None:
        """A stage ends; its time is added to the current frame."""
        self.seconds[stage][-1] += self._now() - self._running.pop(stage)
        self._note_peak(stage)

    def next_frame(self, stages: tuple[str, ...]) -> None:
        """Open a new entry in every stage."""
        for stage in stages:
            self.seconds[stage].append(0.0)

    def forget(self) -> None:
        """Drop what the warm-up measured."""
        self.seconds.clear()
        self.peak_mb.clear()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _note_peak(self, stage: str) -> None:
        peak = _peak_memory_mb(self.device)
        for name in {stage, WHOLE} - {""}:
            self.peak_mb[name] = max(self.peak_mb[name], peak)

    def _reset_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            Path("/proc/self/clear_refs").write_text("5")


def synthetic_batch(detector: BEVFormer, device: torch.device) -> CameraBatch:
    """One frame of noise seen by a nuScenes-like rig, driving forward at 5 m/s."""
    preprocessing = detector.config.preprocessing
    height, width = preprocessing.padded_hw(ORIGINAL_WH[1], ORIGINAL_WH[0])
    scale = torch.from_numpy(preprocessing.scale_matrix())
    image_from_lidar = [scale @ _image_from_lidar(*pair) for pair in zip(CAMERA_YAWS_DEG, FOCAL_PX, strict=True)]
    can_bus = torch.zeros(1, 18, dtype=torch.float64)
    can_bus[0, :2] = torch.tensor([0.0, 2.5])
    return CameraBatch(
        images=torch.randn(1, len(CAMERAS), 3, height, width).to(device),
        image_from_lidar=torch.stack(image_from_lidar)[None].float().to(device),
        can_bus=can_bus.to(device),
        scene_tokens=("scene",),
    )


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Run one setting in this process."""
    device, precision = torch.device(arguments.device), getattr(torch, arguments.precision[0])
    torch.set_num_threads(arguments.threads[0])
    torch.manual_seed(0)
    detector = build(DETECTORS[arguments.detector]()).to(device).eval()
    detector = detector.to(memory_format=torch.channels_last)
    meter = StageMeter(device)
    stages = watch_stages(meter, detector)
    batch = synthetic_batch(detector, device)
    resident_mb = _peak_memory_mb(device)
    state = None
    with torch.no_grad(), torch.autocast(device.type, precision, enabled=precision != torch.float32):
        for frame in range(1 + arguments.repeats):
            meter.next_frame((WHOLE, *stages))
            meter.start(WHOLE)
            _, state = detector.features(batch, state)
            meter.stop(WHOLE)
            if frame == 0:
                meter.forget()
    return {"stages": stages, "seconds": meter.seconds, "peak_mb": meter.peak_mb, "resident_mb": resident_mb}


def watch_stages(meter: StageMeter, detector: BEVFormer) -> dict[str, int]:
    """Which modules make up which stage, and how many there are of each. A new stage is one more entry here."""
    transformer = detector.pts_bbox_head.transformer
    modules: dict[str, list[nn.Module]] = {
        "backbone": [detector.img_backbone],
        "neck": [detector.img_neck],
        "encoder": list(transformer.encoder.layers),
        "decoder": list(transformer.decoder.layers),
    }
    for stage, members in modules.items():
        for module in members:
            meter.watch(stage, module)
    return {stage: len(members) for stage, members in modules.items()}


def report(setting: str, result: dict[str, dict[str, list[float]]]) -> list[str]:
    """Table rows of one setting; the spread is minimum to maximum over the repeats."""
    rows = []
    for stage, count in [*result["stages"].items(), (WHOLE, 1)]:
        seconds = result["seconds"][stage]
        median, spread = statistics.median(seconds), f"{min(seconds):.2f}–{max(seconds):.2f}"
        each = f"{median / count:.2f}" if count > 1 else ""
        name = f"{stage} ({count} layers)" if count > 1 else stage
        rows.append(f"| {setting} | {name} | {median:.2f} | {spread} | {each} | {result['peak_mb'][stage]:.0f} |")
    return rows


def main() -> None:
    """Parse the command line; run every setting in its own process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", choices=DETECTORS, default="bevformer-base")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--precision", nargs="+", choices=["float32", "bfloat16", "float16"], default=["float32"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(arguments)))
        return
    print(f"{arguments.detector}, torch {torch.__version__}, {arguments.device}, {arguments.repeats} frames each")
    print("| setting | stage | s per frame (median) | min–max | s per layer | peak memory MB |")
    print("|---|---|---|---|---|---|")
    for threads in arguments.threads:
        for precision in arguments.precision:
            result = _in_own_process(arguments, threads, precision)
            setting = f"{precision}, {threads} thread{'s' if threads > 1 else ''}"
            print("\n".join(report(setting, result)))
            print(f"| {setting} | before the first frame | | | | {result['resident_mb']:.0f} |", flush=True)


def _in_own_process(arguments: argparse.Namespace, threads: int, precision: str) -> dict[str, dict[str, list[float]]]:
    command = [sys.executable, "-m", "benchmarks.base_forward", "--worker", "--detector", arguments.detector]
    command += ["--device", arguments.device, "--threads", str(threads), "--precision", precision]
    command += ["--repeats", str(arguments.repeats)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    finished = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True)
    result: dict[str, dict[str, list[float]]] = json.loads(finished.stdout)
    return result


def _image_from_lidar(yaw_deg: float, focal_px: float) -> torch.Tensor:
    """A camera 1.5 m above ground (0.3 m under the LiDAR), 0.7 m out from the middle of the roof, looking level."""
    yaw = math.radians(yaw_deg)
    forward = torch.tensor([-math.sin(yaw), math.cos(yaw), 0.0], dtype=torch.float64)
    right = torch.tensor([math.cos(yaw), math.sin(yaw), 0.0], dtype=torch.float64)
    down = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
    camera_from_lidar = torch.eye(4, dtype=torch.float64)
    camera_from_lidar[:3, :3] = torch.stack([right, down, forward])
    camera_from_lidar[:3, 3] = -camera_from_lidar[:3, :3] @ (0.7 * forward + 0.3 * down)
    image_from_camera = torch.eye(4, dtype=torch.float64)
    image_from_camera[0, 0] = image_from_camera[1, 1] = focal_px
    image_from_camera[0, 2], image_from_camera[1, 2] = ORIGINAL_WH[0] / 2, ORIGINAL_WH[1] / 2
    return image_from_camera @ camera_from_lidar


def _peak_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return peak_resident_mb()


if __name__ == "__main__":
    main()
