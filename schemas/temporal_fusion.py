"""How a cached feature was fused from several keyframes of a scene; ``train/temporal_fusion.py`` is the arithmetic."""

from pydantic import BaseModel, ConfigDict, Field


class TemporalFusion(BaseModel):
    """Which keyframes are fused, and how evenly.

    Attributes:
        past_frames: keyframes before the frame itself; fewer at the start of a scene.
        future_frames: keyframes after it, which only a teacher that works offline has seen; fewer at a scene's end.
        temperature: of the attention over frames; below 1 prefers the most similar, above 1 averages more evenly.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    past_frames: int = Field(default=3, ge=0)
    future_frames: int = Field(default=0, ge=0)
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    def __str__(self) -> str:
        """In words, for messages and descriptions."""
        return f"{self.past_frames} past and {self.future_frames} future frames at temperature {self.temperature:g}"
