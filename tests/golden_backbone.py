"""How far the published backbones and necks are from the official code. Run it: ``python -m tests.golden_backbone``."""

import numpy as np
import torch

from detectors.catalogue import DETECTORS
from detectors.config import ResNetConfig
from detectors.fpn import FPN
from detectors.resnet import ResNet
from tests.golden_recipe import fill_module, load_golden, tensor

GOLDEN_BACKBONE = load_golden("bevformer_backbone.npz")


def published_backbone(model: str) -> tuple[ResNet, FPN]:
    """Backbone and neck of ``base``, ``small`` or ``tiny``."""
    config = DETECTORS[f"bevformer-{model}"]()
    assert isinstance(config.backbone, ResNetConfig)
    return ResNet(config.backbone), FPN(config.neck)


@torch.no_grad()
def backbone_errors(model: str) -> dict[str, float]:
    """Largest absolute difference of every golden tensor of one model."""
    backbone, neck = published_backbone(model)
    fill_module(backbone, "img_backbone.")
    fill_module(neck, "img_neck.")
    maps = backbone(tensor("backbone.input", (2, 3, 96, 160)))
    ours = {}
    for number, found in enumerate(maps):
        ours[f"{model}_c{number}_slice"] = found[:, ::37, ::2, ::3]
        ours[f"{model}_c{number}_mean"] = found.mean()
        ours[f"{model}_c{number}_std"] = found.std()
    for number, found in enumerate(neck(maps)):
        ours[f"{model}_p{number}"] = found[:, ::4]
    return {name: float(np.abs(values.numpy() - GOLDEN_BACKBONE[name]).max()) for name, values in ours.items()}


if __name__ == "__main__":
    for model_name in ("tiny", "base", "small"):
        for group, error in backbone_errors(model_name).items():
            print(f"{group:28s} {error:.2e}")
