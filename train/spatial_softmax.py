"""Where a map is strong, as a distribution over its cells, and how far two maps disagree about it.

    D(T ‖ S) = τ² · mean over rows of KL( softmax over cells (T / τ) ‖ softmax over cells (S / τ) )

A row is one channel of one sample, or one map of responses. τ² keeps the gradient's size as the temperature τ changes.

Source: channel-wise distillation (Shu et al., ICCV 2021). FD3D's released code has it, with the cross-entropy in place
of the divergence; the two differ by the teacher's entropy, which has no gradient, and leaves a perfect student at zero.
"""

from jaxtyping import Float
from torch import Tensor


def spatial_divergence(
    student: Float[Tensor, "*row cell"], teacher: Float[Tensor, "*row cell"], temperature: float
) -> Float[Tensor, ""]:
    """D(T ‖ S). The teacher's rows must carry no gradient."""
    wanted, found = (teacher / temperature).log_softmax(-1), (student / temperature).log_softmax(-1)
    return temperature**2 * (wanted.exp() * (wanted - found)).sum(-1).mean()
