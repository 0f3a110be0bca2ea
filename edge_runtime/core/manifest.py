"""What a model bundle says about itself: the schema of `manifest.toml`, shared by who writes and who reads bundles.

Frozen pydantic models, unknown keys refused. Digests are SHA-256 in hex over the file's bytes.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Channels = tuple[float, float, float]


class Kind(StrEnum):
    CLASSIFICATION = "classification"
    HEATMAP = "heatmap"
    DETECTION = "detection"
    SEGMENTATION = "segmentation"
    ANOMALY = "anomaly"
    FEATURES = "features"  # a frozen backbone that `models teach` builds on; not for decisions
    KEYWORD = "keyword"
    SOUND_ANOMALY = "sound_anomaly"


class Part(BaseModel):
    """NaN and infinity are refused in every number: TOML knows both, and every comparison with NaN says "accept"."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class InputSpec(Part):
    """How a frame becomes the model's input tensor.

    `value = pixel * scale + offset` is the real value the network was trained on; the tensor's own quantisation then
    makes it int8, uint8 or int16. A network trained on 0..255 has scale 1, offset 0; on -1..1 scale 1/127.5, offset -1.
    Three numbers are those of red, green and blue (blue, green and red where `colour` is bgr).
    """

    width: int = Field(ge=1, le=4096)
    height: int = Field(ge=1, le=4096)
    colour: Literal["rgb", "bgr", "grey"] = "rgb"
    scale: float | Channels = 1.0
    offset: float | Channels = 0.0
    layout: Literal["nhwc", "nchw"] = Field("nhwc", description="nchw: colours one after the other, as PyTorch has it")
    fit: Literal["letterbox", "stretch"] = Field(
        "letterbox", description="letterbox: keep the aspect, never enlarge, pad; stretch: fill, enlarge if need be"
    )
    pad: Literal["replicate", "black", "grey"] = "black"
    roi: tuple[Unit, Unit, Unit, Unit] = (0.0, 0.0, 1.0, 1.0)  # x, y, w, h of the frame that the model looks at
    light: Literal["as_is", "even"] = Field("as_is", description="even: local light and contrast are evened out first")

    @model_validator(mode="after")
    def _shows_something(self) -> InputSpec:
        scales = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        if 0.0 in scales:
            raise ValueError("scale 0 makes every picture the same")
        if self.colour == "grey" and (isinstance(self.scale, tuple) or isinstance(self.offset, tuple)):
            raise ValueError("a grey input has one scale and one offset")
        return self


class MelSpec(Part):
    """A log-mel picture of sound: `features.mel` computes it, training and box alike.

    Power spectrum of Hann windows, triangular mel filters (HTK scale) between `low_hz` and `high_hz`, natural
    logarithm of the power plus `floor`. Full scale is 1.0.
    """

    window_ms: float = Field(25.0, gt=0, le=1000)
    hop_ms: float = Field(10.0, gt=0, le=1000)
    bands: int = Field(40, ge=4, le=256)
    low_hz: float = Field(20.0, ge=0)
    high_hz: float = Field(7600.0, gt=0)
    floor: float = Field(1e-6, gt=0)


class AudioInput(Part):
    """How sound becomes the model's input. Padding and loudness are the same in training and on the box.

    front_end: `log_mel` feeds `mel`; `speech_embedding` feeds what the bundle's own front-end files make of the clip;
    `micro` feeds the 40 features per 10 ms of the TFLite Micro audio front end to a streaming model.
    """

    rate_hz: int = Field(16_000, ge=8_000, le=96_000)
    clip_ms: int = Field(1500, ge=30, le=60_000, description="length of sound that one prediction looks at")
    pad_ms: Literal[100, 300, 500] = Field(300, description="silence kept around speech")
    loudness_dbfs: float | None = Field(None, le=0.0, description="RMS of speech once normalised; none: as it is")
    front_end: Literal["log_mel", "speech_embedding", "micro"] = "log_mel"
    mel: MelSpec | None = None
    context_frames: int = Field(1, ge=1, le=200, description="mel frames side by side in one input row")


Extent = Annotated[float, Field(gt=0.0, le=4096.0)]


class OutputSpec(Part):
    """How output tensors become scores. Quantisation is always read from the model file itself.

    boxes: how a detector tells what it found. `postprocess`: four outputs as TFLite_Detection_PostProcess gives them.
    `yolov5`: rows of x, y, w, h, objectness and classes; `yolov8`: the same without objectness; `nms`: rows of x0, y0,
    x1, y1, score and class. box_extent: what the whole input measures in the unit of a YOLO box, (1, 1) or its pixels.
    calibration: (a, b) of score = 1 / (1 + exp(-(a * raw + b))), where raw is the mean of the `top_k` hottest cells
    (heatmap); None leaves the raw value. Of kind keyword: logits times a, and b added to that of the label `_other`.
    """

    labels: tuple[str, ...] = Field(min_length=1)
    defect_labels: tuple[str, ...] = ()  # labels that count as defective; score = the largest of theirs
    activation: Literal["none", "sigmoid", "softmax"] = "none"
    top_k: int = Field(3, ge=1, le=1000)
    calibration: tuple[float, float] | None = None
    region_at: Unit = 0.5  # heat (after activation) from which a cell belongs to a region
    confidence: Unit = 0.5  # boxes below this are not reported
    boxes: Literal["postprocess", "yolov5", "yolov8", "nms"] = "postprocess"
    box_extent: tuple[Extent, Extent] = (1.0, 1.0)  # across and down
    overlap: Unit = 0.45  # intersection over union from which the weaker of two YOLO boxes of one label is dropped

    @model_validator(mode="after")
    def _hotter_is_worse(self) -> OutputSpec:
        if self.calibration is not None and self.calibration[0] <= 0.0:
            raise ValueError(f"calibration {self.calibration}: its first number must be above 0, else hot parts pass")
        return self


class Thresholds(Part):
    """score < accept_below: accept; score >= reject_at: reject; between them: unsure."""

    accept_below: Unit = 0.5
    reject_at: Unit = 0.5
    over_reject: Unit | None = Field(None, description="share of good parts that the thresholds were chosen to cost")

    @model_validator(mode="after")
    def _in_order(self) -> Thresholds:
        if self.accept_below > self.reject_at:
            raise ValueError(f"accept_below {self.accept_below} is above reject_at {self.reject_at}")
        return self


Level = Annotated[float, Field(ge=0.0, le=255.0)]
Positive = Annotated[float, Field(gt=0.0, le=1000.0)]


class PictureReference(Part):
    """What pictures of clean parts look like to the model, as `features.picture_validity` measures it.

    A picture unlike them is not judged. Whoever makes a bundle fills this in with `picture_reference`, never by hand.
    """

    pictures: int = Field(ge=1, description="how many were measured")
    width: int = Field(ge=1, description="pixels across, as measured, of the narrowest")
    levels: tuple[Level, Level, Level, Level, Level]  # medians of the 5, 25, 50, 75 and 95 % levels
    light: tuple[Positive, Positive]  # least and most light of one picture; 1 is that of `levels`
    contrast: Level  # the least
    sharpness: float = Field(ge=0.0, le=255.0)  # the least
    one_way: float = Field(0.0, ge=0.0, le=255.0)  # the least of the less sharp direction; 0: not measured
    crispness: float = Field(ge=0.0, le=255.0)  # the least
    blank: Unit  # the largest share of rows or columns with nothing on them
    colours: tuple[Level, Level, Level] = (0.0, 0.0, 0.0)  # the least range of red, green, blue; 0: not measured


class Reference(Part):
    """Statistics of the clean data a model was made with: a histogram over equal bins of 0..1 for drift; how bright
    its pictures are and what they look like, for the question whether a picture shows anything at all."""

    score_histogram: tuple[float, ...] = ()
    brightness_mean: float | None = None
    brightness_std: float | None = None
    picture: PictureReference | None = None


class Manifest(Part):
    """`manifest.toml`. `files` maps every other file of the bundle to its digest; anything not listed is refused."""

    schema_version: Literal[1] = 1
    name: Name
    version: Name
    kind: Kind
    title: str = ""
    licence: str = Field(min_length=1)
    min_runtime: str = "0.1.0"
    signature: str = Field("", max_length=200)  # which of the file's signatures runs; empty: the graph as it is
    runtime: str = ""  # the TFLite runtime and version whose golden outputs these are
    training_data: Sha256 | None = None  # digest of the recipe or of the data set the model was made from
    input: InputSpec | None = None
    audio: AudioInput | None = None
    output: OutputSpec | None = None
    thresholds: Thresholds = Thresholds()
    reference: Reference = Reference()
    metrics: dict[str, float] = Field(
        default_factory=dict
    )  # "float.auroc", "int8.auroc", "int8.missed_at_threshold"...
    golden_tolerance: Unit = 0.05  # largest difference of a golden score that another runtime may show
    files: dict[str, Sha256] = Field(min_length=1)

    @model_validator(mode="after")
    def _can_find_something(self) -> Manifest:
        """The hottest heat, 1 after an activation, must not be accepted: its score is 1 / (1 + exp(-(a + b)))."""
        output = self.output
        if self.kind is Kind.HEATMAP and output and output.calibration and output.activation != "none":
            a, b = output.calibration
            if a + b < _logit(self.thresholds.accept_below):
                raise ValueError(f"calibration {output.calibration} accepts every part, however hot it is")
        return self

    @property
    def label(self) -> str:
        """How records name this model: `name@version`."""
        return f"{self.name}@{self.version}"


def _logit(share: float) -> float:
    """The a + b from which a calibrated score is at least `share`."""
    return math.log(share / (1.0 - share)) if 0.0 < share < 1.0 else math.copysign(math.inf, share - 0.5)
