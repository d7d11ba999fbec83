"""The stream and the loop on a CUDA device: pinned slots, asynchronous copies, scaled float16."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from train_world import CPU, SCENES, fill_cache, tiny_detector, tiny_tables

from detectors.bevformer import BEVFormer
from scenes.score import Score
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


def test_averaged_steps_of_several_scaled_batches_go_on_where_they_stopped(tmp_path: Path) -> None:
    tables = tiny_tables(tmp_path)
    options = TrainOptions(
        steps=4,
        accumulate=2,
        ema_decay=0.9,
        precision="float16",
        clips=ClipOptions(mode="stream"),
        log_every=1,
        evaluate_every=2,
    )

    def score(_detector: BEVFormer) -> Score:
        torch.rand(3, device="cuda")
        return Score(0.1, 0.1, {}, {}, {}, "tune", samples=1)

    def lines_of(out: str, stops: tuple[int, ...]) -> list[dict[str, object]]:
        for stop in stops:
            run = TrainingRun(tiny_detector(), tables, SCENES, None, options, tmp_path / out, torch.device("cuda"))
            train(replace(run, evaluate=score), lambda _: None, stop)
        return [json.loads(line) for line in (tmp_path / out / "metrics.jsonl").read_text().splitlines()]

    whole, halves = lines_of("whole", (4,)), lines_of("halves", (2, 4))
    assert [line["loss_scale"] for line in halves] == [line["loss_scale"] for line in whole]
    # Not bit for bit: sums of gradients of sampled features are in no fixed order on a GPU.
    losses = [[line["loss"] for line in lines] for lines in (whole, halves)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
