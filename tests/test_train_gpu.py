"""The stream and the loop on a CUDA device: pinned slots, asynchronous copies, scaled float16."""

import json
from pathlib import Path

import pytest
import torch
from train_world import CPU, SCENES, fill_cache, tiny_detector, tiny_tables

from train.clips import Clip, ClipOptions
from train.distiller_catalogue import DistillationOptions
from train.loop import train
from train.options import OptimizerOptions, TrainOptions
from train.run import TrainingRun
from train.stream import StreamOptions, TargetWindow, TeacherStream

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_targets_on_the_device_equal_those_on_the_cpu(tmp_path: Path) -> None:
    tables = tiny_tables(tmp_path)
    cache = fill_cache(tmp_path / "cache", tables)
    clips = [Clip(SCENES[number % 3], (number % 4,), ("",)) for number in range(12)]
    windows = {}
    for device in (CPU, torch.device("cuda")):
        window = TargetWindow(("bev", "temporal_offsets"), 3, 1)
        with TeacherStream(cache, window, StreamOptions(look_ahead=1), device) as stream:
            collected = [stream.collect(stream.start([clip])) for clip in clips[:1]]
            windows[device.type] = [collected[0].window("bev").cpu()]
            windows[device.type] += [stream.collect(stream.start([clip])).window("bev").cpu() for clip in clips[1:]]
    for on_cpu, on_cuda in zip(windows["cpu"], windows["cuda"], strict=True):
        torch.testing.assert_close(on_cuda, on_cpu)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_training_on_the_device_lowers_the_loss(tmp_path: Path, precision: str) -> None:
    tables = tiny_tables(tmp_path)
    run = TrainingRun(
        detector=tiny_detector(),
        tables=tables,
        scene_names=SCENES[:1],
        cache=fill_cache(tmp_path / "cache", tables),
        options=TrainOptions(
            steps=40,
            batch_size=2,
            clips=ClipOptions(length=3),
            precision=precision,
            distillation=DistillationOptions(names=("feature",)),
            optimizer=OptimizerOptions(lr=3e-3, warmup_steps=0),
            log_every=1,
        ),
        out=tmp_path / "out",
        device=torch.device("cuda"),
    )
    train(run, lambda _: None, max_steps=20)
    train(run, lambda _: None)
    losses = [json.loads(line)["loss"] for line in (run.out / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 40
    assert sum(losses[-6:]) < 0.9 * sum(losses[:6])
