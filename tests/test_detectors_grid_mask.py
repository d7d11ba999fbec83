"""GridMask: what it keeps, how often, and that its random numbers are PyTorch's."""

import torch

from detectors.grid_mask import grid_mask

IMAGES = torch.rand(2, 6, 3, 24, 40) + 0.5


def official_mask(height: int, width: int, period: int, phases: tuple[int, int]) -> torch.Tensor:
    """The released loop, for given random numbers: 1 where pixels are kept."""
    canvas = torch.ones(int(1.5 * height), int(1.5 * width))
    stripe = min(max(int(period * 0.5 + 0.5), 1), period - 1)
    for number in range(canvas.shape[0] // period):
        canvas[period * number + phases[0] : period * number + phases[0] + stripe] = 0
    for number in range(canvas.shape[1] // period):
        canvas[:, period * number + phases[1] : period * number + phases[1] + stripe] = 0
    top, left = (canvas.shape[0] - height) // 2, (canvas.shape[1] - width) // 2
    return 1 - canvas[top : top + height, left : left + width]


def test_masks_are_the_official_ones() -> None:
    for seed in range(50):
        torch.manual_seed(seed)
        masked = grid_mask(IMAGES, 1.0)
        torch.manual_seed(seed)
        torch.rand(())
        period = int(torch.randint(2, 24, ()))
        phases = int(torch.randint(0, period, ())), int(torch.randint(0, period, ()))
        assert torch.equal(masked, IMAGES * official_mask(24, 40, period, phases))


def test_it_is_drawn_as_often_as_asked() -> None:
    torch.manual_seed(0)
    changed = sum(not torch.equal(grid_mask(IMAGES[:1, :1], 0.7), IMAGES[:1, :1]) for _ in range(400))
    assert 0.6 < changed / 400 < 0.8


def test_never_means_never() -> None:
    assert all(grid_mask(IMAGES, 0.0) is IMAGES for _ in range(20))
