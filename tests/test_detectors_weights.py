"""Weights files: what loads, what is reported, and every way a file can be wrong."""

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from detectors.catalogue import DETECTORS, build
from detectors.config import ResNetConfig
from detectors.resnet import Bottleneck
from detectors.weights import load_weights, save_weights
from schemas.errors import CheckpointError
from tests.golden_recipe import fill_module


class Model(nn.Module):
    """A convolution and a norm, so that there are parameters, buffers and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)


def filled() -> Model:
    model = Model()
    fill_module(model)
    return model


def published_form(state_dict: dict[str, Tensor]) -> dict[str, object]:
    return {"meta": {"epoch": 24, "CLASSES": ["car"]}, "state_dict": state_dict, "optimizer": {"lr": 2e-4}}


def assert_same(model: nn.Module, expected: nn.Module) -> None:
    for name, entry in model.state_dict().items():
        assert torch.equal(entry, expected.state_dict()[name]), name


# ---------------------------------------------------------------------------------------------- what loads


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_checkpoints_load(tmp_path: Path, wrapped: bool, prefix: str) -> None:
    source, model = filled(), Model()
    entries = {prefix + name: entry for name, entry in source.state_dict().items()}
    path = tmp_path / "published.pth"
    torch.save(published_form(entries) if wrapped else entries, path)
    report = load_weights(model, path)
    assert report.is_complete
    assert str(report) == f"{path}: {len(entries)} entries matched"
    assert_same(model, source)


def test_saved_weights_load_again_and_leave_nothing_else(tmp_path: Path) -> None:
    source, model = filled().to(memory_format=torch.channels_last), Model()  # type: ignore[call-overload]
    save_weights(source, tmp_path / "model.safetensors")
    assert load_weights(model, tmp_path / "model.safetensors").is_complete
    assert_same(model, source)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_an_interrupted_save_keeps_the_file_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(filled(), path)
    before = path.read_bytes()

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_weights(Model(), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_old_names_of_deformable_offsets_are_understood(tmp_path: Path) -> None:
    source, model = (nn.Sequential(Bottleneck(8, 4, 1, ResNetConfig(), deformable=True)) for _ in range(2))
    fill_module(source)
    entries = {name.replace("conv2.conv_offset", "conv2_offset"): e for name, e in source.state_dict().items()}
    assert any("conv2_offset" in name for name in entries)
    torch.save({"state_dict": entries}, tmp_path / "old.pth")
    assert load_weights(model, tmp_path / "old.pth").is_complete
    assert_same(model, source)


def test_weights_are_cast_to_the_models_precision(tmp_path: Path) -> None:
    save_weights(filled().half(), tmp_path / "half.safetensors")
    model = Model()
    load_weights(model, tmp_path / "half.safetensors")
    assert model.conv.weight.dtype == torch.float32
    assert torch.equal(model.conv.weight, filled().conv.weight.half().float())


def test_a_missing_batch_counter_is_no_difference(tmp_path: Path) -> None:
    entries = {name: entry for name, entry in filled().state_dict().items() if "num_batches" not in name}
    save_file(entries, tmp_path / "old.safetensors")
    assert load_weights(Model(), tmp_path / "old.safetensors").is_complete


# ---------------------------------------------------------------------------------------------- what does not fit


def other_entries() -> dict[str, Tensor]:
    entries = dict(filled().state_dict())
    del entries["conv.bias"]
    return entries | {"norm.weight": torch.ones(5), "head.weight": torch.ones(1)}


def test_a_partial_match_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    torch.save({"state_dict": other_entries()}, tmp_path / "other.pth")
    model = filled()
    with pytest.raises(CheckpointError) as refusal:
        load_weights(model, tmp_path / "other.pth")
    assert str(refusal.value).splitlines() == [
        "The weights are not those of this detector.",
        f"{tmp_path / 'other.pth'}: 5 entries matched",
        "  1 missing from the file: conv.bias",
        "  1 unexpected in the file: head.weight",
        "  1 of another shape: norm.weight [5] instead of [4]",
        "It looks like no detector of detectors/catalogue.py: choose a file made for this one, "
        "or load what fits with --allow-partial.",
    ]
    assert_same(model, filled())


def test_a_partial_match_loads_what_fits_when_asked(tmp_path: Path) -> None:
    torch.save({"state_dict": other_entries()}, tmp_path / "other.pth")
    model = Model()
    bias, scale = model.conv.bias.clone(), model.norm.weight.clone()
    report = load_weights(model, tmp_path / "other.pth", allow_partial=True)
    assert not report.is_complete
    assert report.missing == ("conv.bias",)
    assert report.unexpected == ("head.weight",)
    assert [difference.name for difference in report.reshaped] == ["norm.weight"]
    assert torch.equal(model.conv.weight, filled().conv.weight)
    assert torch.equal(model.conv.bias, bias)
    assert torch.equal(model.norm.weight, scale)


def test_nothing_in_common_is_refused_even_when_partial_is_allowed(tmp_path: Path) -> None:
    torch.save({"backbone.weight": torch.ones(1)}, tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match="0 entries matched"):
        load_weights(Model(), tmp_path / "foreign.pth", allow_partial=True)


def test_weights_of_another_detector_are_named(tmp_path: Path) -> None:
    teacher = build(DETECTORS["demo-teacher"]())
    save_weights(teacher, tmp_path / "teacher.safetensors")
    with pytest.raises(CheckpointError) as refusal:
        load_weights(build(DETECTORS["demo-student"]()), tmp_path / "teacher.safetensors")
    count = len(teacher.state_dict())
    assert f"It looks like demo-teacher ({count} of its {count} entries fit): choose that" in str(refusal.value)
    assert ", ..." in str(refusal.value)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = filled()
    with torch.no_grad():
        model.norm.running_var[2] = float("nan")
    save_weights(model, tmp_path / "diverged.safetensors")
    untouched = Model()
    conv = untouched.conv.weight.clone()
    with pytest.raises(CheckpointError, match=r"norm.running_var holds NaN or infinite numbers.*earlier checkpoint"):
        load_weights(untouched, tmp_path / "diverged.safetensors")
    assert torch.equal(untouched.conv.weight, conv)


def test_an_entry_under_both_its_names_is_refused(tmp_path: Path) -> None:
    entries = {"conv2_offset.bias": torch.ones(1), "conv2.conv_offset.bias": torch.ones(1)}
    save_file(entries, tmp_path / "twice.safetensors")
    with pytest.raises(CheckpointError, match=r"twice, as conv2_offset and as conv2\.conv_offset"):
        load_weights(Model(), tmp_path / "twice.safetensors")


# ---------------------------------------------------------------------------------------------- files that are none


class Trap:
    """Unpickling one creates a file: the proof that code ran."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.sign),)


def test_a_checkpoint_that_needs_code_is_refused_and_none_is_run(tmp_path: Path) -> None:
    content = published_form(dict(filled().state_dict())) | {"meta": Trap(tmp_path / "code_ran")}
    torch.save(content, tmp_path / "trap.pth")
    with pytest.raises(CheckpointError, match=r"mkdir in it would run code\. Nothing was run\..*state_dict alone"):
        load_weights(Model(), tmp_path / "trap.pth")
    assert not (tmp_path / "code_ran").exists()


@pytest.mark.parametrize("name", ["absent.pth", "absent.safetensors", "."])
def test_an_absent_file_says_where_files_are_listed(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=r"no such weights file.*detectors/catalogue.py"):
        load_weights(Model(), tmp_path / name)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"version https://git-lfs.github.com/spec/v1\n", b"\x80"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"page{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"cannot be read as one.*fetch it again"):
        load_weights(Model(), path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_weights(filled(), path)
    else:
        torch.save(filled().state_dict(), path)
    whole = path.read_bytes()
    for kept in (len(whole) - 1, len(whole) // 2, 20):
        path.write_bytes(whole[:kept])
        with pytest.raises(CheckpointError, match="cannot be read as one"):
            load_weights(Model(), path)


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(filled().state_dict(), path)
    with zipfile.ZipFile(path) as archive:
        record = next(info for info in archive.infolist() if info.filename.endswith("/data/0"))
    content = bytearray(path.read_bytes())
    content[record.header_offset + record.file_size] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad checksum of .*data/0"):
        load_weights(Model(), path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "got an empty dict"),
        ([torch.ones(1)], "got list"),
        ({"state_dict": {}}, "got an empty dict"),
        ({"model": {"conv.weight": torch.ones(1)}}, "'model' is dict.*save them again"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=message):
        load_weights(Model(), tmp_path / "other.pth")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), start=st.sampled_from([b"", b"\x80\x02", b"PK\x03\x04"]))
def test_any_junk_ends_in_our_error(tmp_path: Path, content: bytes, start: bytes) -> None:
    path = tmp_path / "junk.pth"
    path.write_bytes(start + content)
    with pytest.raises(CheckpointError):
        load_weights(Model(), path)


def test_the_form_before_torch_1_6_is_refused_with_its_conversion(tmp_path: Path) -> None:
    torch.save(filled().state_dict(), tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"zip form that PyTorch writes since 1\.6.*Convert it: torch\.save"):
        load_weights(Model(), tmp_path / "legacy.pth")


def test_a_plain_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"conv.weight": [1.0]}))
    with pytest.raises(CheckpointError, match="cannot be read as one"):
        load_weights(Model(), tmp_path / "plain.pkl")
