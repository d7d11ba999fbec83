"""What a run starts from instead of random numbers: files of weights, before anything is inherited from a teacher.

It happens once, before the first step; a run that goes on has its weights from its checkpoint. Which files they were is
part of a run's identity, by their content: a run cannot go on with another file under the same name, and can with the
same file elsewhere.
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from hashlib import file_digest
from pathlib import Path

from pydantic import BaseModel, ConfigDict, model_validator

from detectors.bevformer import BEVFormer
from detectors.initial_weights import load_backbone, load_parts
from detectors.shipped import PREFIX, shipped_file
from detectors.weights import COUNTER, LoadReport, load_weights
from schemas.errors import CheckpointError

BACKBONE = "img_backbone"
_OPTION = "student.training.init"


class InitOptions(BaseModel):
    """Which weights a run starts from; all random by default.

    Attributes:
        weights: file of a whole detector, ``.pth`` as published or ``.safetensors``; or ``shipped:NAME``, weights that
            come with the program, wherever that is installed.
        parts: parts of the detector that ``weights`` is for, as its entries' names begin, e.g. ``[img_backbone,
            img_neck]``. Empty: all of it, and then the file must be exactly this detector's.
        backbone: file of an image backbone that was trained for another task, under torchvision's or mmcv's names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str | None = None
    parts: tuple[str, ...] = ()
    backbone: str | None = None

    @model_validator(mode="after")
    def _check(self) -> "InitOptions":
        if self.parts and self.weights is None:
            raise ValueError(
                f"parts are of a file of weights, and none is named: --init FILE or --set {_OPTION}.weights"
            )
        twice = not self.parts or any(part.partition(".")[0] == BACKBONE for part in self.parts)
        if self.weights is not None and self.backbone is not None and twice:
            raise ValueError(
                f"weights ({self.weights}) and backbone ({self.backbone}) would both fill the image backbone. Leave "
                f"one of them out (--set {_OPTION}.weights=null), or say which parts the weights are for: "
                f"--set '{_OPTION}.parts=[img_neck, pts_bbox_head]'"
            )
        return self


@dataclass(frozen=True)
class Source:
    """A file that a detector was filled from.

    Attributes:
        file: its path.
        sha256: of its bytes.
        fills: which parts of the detector; none for all of it.
        entries: how many of the detector's entries it gave.
        left_in_file: entries of the file that no part wanted.
    """

    file: str
    sha256: str
    fills: tuple[str, ...]
    entries: int
    left_in_file: int


@dataclass(frozen=True)
class Initialisation:
    """What a run started from; written beside its output.

    Attributes:
        sources: the files, in the order they were read.
        new: entries that no file gave, by the part they belong to; they start as a new detector's do.
    """

    sources: tuple[Source, ...]
    new: dict[str, int]

    def as_json(self) -> str:
        """Indented, with a line's end."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def __str__(self) -> str:
        lines = [
            f"Starting from {source.file} (sha256 {source.sha256[:16]}): {source.entries} entries of "
            f"{', '.join(source.fills) or 'the whole detector'}"
            + (f"; {source.left_in_file} more in the file are not used" if source.left_in_file else "")
            for source in self.sources
        ]
        new = ", ".join(f"{count} of {part}" for part, count in self.new.items())
        return "\n".join([*lines, f"As in a new detector, from no file: {new or 'nothing'}"])


def identity_of(options: InitOptions) -> dict[str, object]:
    """What a checkpoint must share with a run that goes on from it: the files' content, not their names.

    Empty without any, as it was for runs begun before there was a choice.

    Raises:
        CheckpointError: a file cannot be read.
    """
    if options == InitOptions():
        return {}
    return {
        "weights": None if options.weights is None else _sha256(_path(options.weights)),
        "parts": list(options.parts),
        "backbone": None if options.backbone is None else _sha256(_path(options.backbone)),
    }


def initialise(detector: BEVFormer, options: InitOptions) -> Initialisation | None:
    """Fill a new detector, in place, from the files named; None where none is.

    Raises:
        CheckpointError: a file is absent, damaged or not for this detector; it is then unchanged by that file.
    """
    sources: list[Source] = []
    filled: set[str] = set()
    if options.weights is not None:
        path = _path(options.weights)
        report = _load_weights(detector, path, options.parts)
        filled.update(report.matched)
        sources.append(_source(path, options.parts, report))
    if options.backbone is not None:
        path = _path(options.backbone)
        report = load_backbone(detector.img_backbone, path)
        filled.update(f"{BACKBONE}.{name}" for name in report.matched)
        sources.append(_source(path, (BACKBONE,), report))
    if not sources:
        return None
    names = [name for name in detector.state_dict() if name not in filled and not name.endswith(COUNTER)]
    return Initialisation(tuple(sources), dict(Counter(name.partition(".")[0] for name in names)))


def _load_weights(detector: BEVFormer, path: Path, parts: tuple[str, ...]) -> LoadReport:
    if parts:
        return load_parts(detector, path, parts)
    return load_weights(detector, path, instead=f"start some parts from it: --set '{_OPTION}.parts=[{BACKBONE}]'")


def _source(path: Path, fills: tuple[str, ...], report: LoadReport) -> Source:
    return Source(str(path), _sha256(path), fills, len(report.matched), len(report.unexpected))


def _path(name: str) -> Path:
    if name.startswith(PREFIX):
        return shipped_file(name.removeprefix(PREFIX))
    return Path(name).expanduser()


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(
            f"{path}: the weights that this run starts from cannot be read ({error.strerror}). Give their place with "
            f"--init or --init-backbone ({_OPTION}); a run that goes on needs them too, to be known by their content."
        ) from error
