"""Runs a small head compiled and plain and prints how far apart they are; ``test_detectors_encoder`` reads it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tests.golden_mini import CASES, cameras_of, can_bus_of, history_of, mini_config, mini_head

_GRAPHS: list[torch.fx.GraphModule] = []


def counting(graph: torch.fx.GraphModule, _inputs: Sequence[Tensor]) -> Callable[..., object]:
    """A compiler that changes nothing and remembers what it was given."""
    _GRAPHS.append(graph)
    return graph.forward


@torch.no_grad()
def main() -> None:
    """Compile once, then meet frames with another number of visible cells, and with and without history."""
    torch.set_num_threads(1)
    config = mini_config(CASES[1])
    one_layer = {"encoder": config.encoder.model_copy(update={"layers": 1})}
    head = mini_head(config.model_copy(update=one_layer | {"decoder": config.decoder.model_copy(update={"layers": 1})}))
    encode = torch.compile(head.encode, backend=counting)
    detect = torch.compile(head.detect, backend=counting, fullgraph=True)
    for case in (CASES[1], CASES[0]):
        inputs = cameras_of(case), can_bus_of(case), history_of(case)
        bev, _ = head.encode(*inputs)
        _GRAPHS.clear()
        print(f"encoder_difference={float((encode(*inputs)[0] - bev).abs().max())}")
        print(f"encoder_graphs={len(_GRAPHS)}")
    print(f"decoder_difference={float((detect(bev)[0].boxes - head.detect(bev)[0].boxes).abs().max())}")


if __name__ == "__main__":
    main()
