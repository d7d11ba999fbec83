"""Runs the golden head compiled and plain and prints how far apart they are; ``test_detectors_encoder`` reads it."""

import torch

from tests.golden_mini import CASES, cameras_of, can_bus_of, history_of, mini_config, mini_head


@torch.no_grad()
def main() -> None:
    """Compile once, then meet frames with another number of visible cells, and with and without history."""
    torch.set_num_threads(1)
    head = mini_head(mini_config(CASES[1]))
    explained = torch._dynamo.explain(head.encode)(cameras_of(CASES[1]), can_bus_of(CASES[1]), history_of(CASES[1]))
    print(f"encoder_graphs={explained.graph_count}")
    torch._dynamo.reset()
    encode = torch.compile(head.encode, backend="eager")
    detect = torch.compile(head.detect, backend="eager", fullgraph=True)
    encoder, decoder = 0.0, 0.0
    for case in CASES[:2]:
        inputs = cameras_of(case), can_bus_of(case), history_of(case)
        bev, _ = head.encode(*inputs)
        encoder = max(encoder, float((encode(*inputs)[0] - bev).abs().max()))
        decoder = max(decoder, float((detect(bev)[0].boxes - head.detect(bev)[0].boxes).abs().max()))
    print(f"encoder_difference={encoder}")
    print(f"decoder_difference={decoder}")


if __name__ == "__main__":
    main()
