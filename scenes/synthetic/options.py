"""What a synthetic world is made from: its options and the version of the generator."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

GENERATOR_VERSION = 3
"""Raised whenever the same options would give other bytes."""

TABLE_VERSION = "v1.0-trainval"
"""The nuScenes version the world claims to be; its ``train`` and ``val`` are the official splits of that version."""

KEYFRAME_INTERVAL_S = 0.5
"""nuScenes annotates at 2 Hz."""

SENSED_RADIUS_M = 31.5
"""Beyond this distance from the LiDAR no sensor returns a point from an object, so the evaluation does not score it."""


class WorldOptions(BaseModel):
    """Size and seed of a world; the same options always give the same bytes.

    Attributes:
        train_scenes, tune_scenes, val_scenes: scenes in each split. ``tune`` is for choosing settings, so that ``val``
            stays unseen; it borrows names of the official test split and is listed in ``splits.json``.
        frames_per_scene: keyframes per scene, 0.5 s apart.
        image_width, image_height: pixels. The field of view is the real rig's for 16:9 images of any size.
        seed: another seed is another world.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    train_scenes: int = Field(default=160, ge=0, le=685)
    tune_scenes: int = Field(default=20, ge=0, le=144)
    val_scenes: int = Field(default=20, ge=0, le=150)
    frames_per_scene: int = Field(default=20, ge=1, le=200)
    image_width: int = Field(default=224, ge=32)
    image_height: int = Field(default=126, ge=18)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> "WorldOptions":
        if self.train_scenes + self.tune_scenes + self.val_scenes == 0:
            raise ValueError("a world needs at least one scene in train_scenes, tune_scenes or val_scenes")
        return self
