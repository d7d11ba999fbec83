"""The query branch and the channel-wise loss reproduce the numbers of FD3D's released functions."""

import numpy as np
import pytest
import torch
from golden_recipe import fill, load_golden
from train_fakes import bev_spec, grid_of, manifest_of

from schemas.boxes import CLASS_NAMES
from train.query_branch import QueryBranch, QueryBranchOptions
from train.spatial_softmax import spatial_divergence

GOLDEN = load_golden("fd3d_parts.npz")
CHANNELS, QUERIES, CELLS = 32, 30, 20


def golden(name: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[name])


def released_name(ours: str) -> str:
    inner = "" if ours.startswith(("query_embedding", "cls_", "reg_")) else "transformer."
    return f"branch_distill_queries.{inner}{ours}"


@pytest.fixture(scope="module")
def branch() -> QueryBranch:
    teacher = manifest_of((bev_spec(CELLS, CELLS, CHANNELS),), grid_of(CELLS, CELLS))
    teacher = teacher.model_copy(update={"class_names": CLASS_NAMES})
    built = QueryBranch(QueryBranchOptions(queries=QUERIES, layers=2, ffn_channels=64), teacher, CHANNELS)
    with torch.no_grad():
        for name, values in built.state_dict().items():
            values.copy_(torch.from_numpy(fill(released_name(name), tuple(values.shape))))
        built.query_embedding.weight[:, :CHANNELS] *= 16
    return built.eval()


def test_the_branch_detects_and_reads_as_the_released_one(branch: QueryBranch) -> None:
    with torch.no_grad():
        queries, pairs = branch(golden("branch_bev_teacher"), golden("branch_bev_student"))
    torch.testing.assert_close(queries.logits, golden("branch_cls"), atol=1e-4, rtol=0)
    torch.testing.assert_close(queries.boxes, golden("branch_bbox"), atol=1e-3, rtol=0)
    torch.testing.assert_close(pairs.teacher, golden("branch_pairs_T"), atol=1e-4, rtol=0)
    torch.testing.assert_close(pairs.student, golden("branch_pairs_S"), atol=1e-4, rtol=0)


@pytest.mark.parametrize("level", range(4))
def test_channel_wise_loss_and_gradient(level: int) -> None:
    student = golden(f"cwd{level}_student").requires_grad_()
    loss = 0.25 * spatial_divergence(student.flatten(2), golden(f"cwd{level}_teacher").flatten(2), temperature=2.0)
    loss.backward()
    # The release adds the teacher's entropy, which does not depend on the student.
    released = GOLDEN[f"cwd{level}_loss"].item() - GOLDEN[f"cwd{level}_teacher_entropy_term"].item()
    assert loss.item() == pytest.approx(released, abs=3e-6)
    assert student.grad is not None
    np.testing.assert_allclose(student.grad.numpy(), GOLDEN[f"cwd{level}_grad"], atol=1e-7)
