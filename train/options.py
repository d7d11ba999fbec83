"""How a training run goes. The part of a recipe that the student stage reads."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from train.augmentation import AugmentationOptions
from train.clips import ClipOptions
from train.distiller_catalogue import DistillationOptions
from train.initialisation import InitOptions
from train.stream import StreamOptions

Precision = Literal["float32", "bfloat16", "float16"]


class OptimizerOptions(BaseModel):
    """AdamW as published for BEVFormer.

    Attributes:
        lr: learning rate at the top of the schedule.
        backbone_lr_factor: of the image backbone's learning rate.
        weight_decay: on every trained parameter.
        max_grad_norm: gradients are scaled down to this L2 norm over all parameters.
        warmup_steps: linear warm-up from ``warmup_from`` · lr.
        warmup_from: where the warm-up starts, as a fraction.
        floor: where the cosine ends, as a fraction of lr.
        cosine: ``per-step`` lowers the rate at every step. ``per-epoch`` is the published schedule, which follows the
            same curve but holds it from one epoch's start to the next; the two agree at every epoch's first step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    lr: float = Field(default=2e-4, gt=0)
    backbone_lr_factor: float = Field(default=0.1, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float = Field(default=35.0, gt=0)
    warmup_steps: int = Field(default=500, ge=0)
    warmup_from: float = Field(default=1 / 3, gt=0, le=1)
    floor: float = Field(default=1e-3, ge=0, le=1)
    cosine: Literal["per-step", "per-epoch"] = "per-step"


class TrainOptions(BaseModel):
    """A run, but for the detector, the data and the cache.

    Attributes:
        init: weights to start from; random by default.
        steps: length of the run; the schedule is spread over it.
        batch_size: clips per batch and process.
        clips: how clips are cut.
        augmentation: what is done to the images.
        history_from_step: before this step the student sees supervised frames alone. Single frames are faster, and a
            student that starts on them learns sooner than one that starts on clips.
        precision: of the detector's forward and backward pass; losses of distillers are always in float32.
            ``float16`` scales the loss and needs CUDA.
        seed: of the order of clips and of everything random in training.
        distillation: which distillers, and their weights.
        optimizer: learning rate and schedule.
        stream: threads and look-ahead; changes no number.
        accumulate: batches per step of the optimiser (``train/step.py``); the options here count the optimiser's.
        ema_decay: the result is an average of the weights over the run, decaying so per step (``train/ema.py``); None
            takes the last weights.
        log_every: steps between lines of ``metrics.jsonl``; changes no number.
        checkpoint_every: steps between checkpoints; changes no number.
        evaluate_every: steps between scores (``train/periodic_evaluation.py``), the last step scored too; 0 for none.
            Changes no number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    init: InitOptions = InitOptions()
    steps: int = Field(ge=1)
    batch_size: int = Field(default=1, ge=1)
    clips: ClipOptions = ClipOptions()
    augmentation: AugmentationOptions = AugmentationOptions()
    history_from_step: int = Field(default=0, ge=0)
    precision: Precision = "float32"
    seed: int = Field(default=0, ge=0)
    distillation: DistillationOptions = DistillationOptions()
    optimizer: OptimizerOptions = OptimizerOptions()
    stream: StreamOptions = StreamOptions()
    accumulate: int = Field(default=1, ge=1)
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    log_every: int = Field(default=10, ge=1)
    checkpoint_every: int = Field(default=500, ge=1)
    evaluate_every: int = Field(default=0, ge=0)

    def what_changes_numbers(self) -> dict[str, object]:
        """The options that a resumed run must share with the run it continues, as plain JSON values; but for ``init``.

        Younger ones are left out where they are off, so that runs begun before them can go on. So are the settings of
        distillers that take no part.
        """
        shared = self.model_dump(
            mode="json", exclude={"init", "stream", "log_every", "checkpoint_every", "evaluate_every"}
        )
        shared["distillation"] = self.distillation.that_are_read()
        off = {"accumulate": 1, "ema_decay": None, "augmentation": {"photometric": None}}
        return {name: value for name, value in shared.items() if name not in off or value != off[name]}
