"""The station file: one TOML file, parsed once into frozen models with defaults, units and ranges.

Every key has a description; `config schema` prints them and a test checks that none is missing. Reading a file, and
saying in a technician's words what is wrong with it, is `config/load.py`.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import ip_address
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

Text = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$")]  # paths and names without control characters
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Section(BaseModel):
    """NaN and infinity, which TOML can write, are no numbers of a station: neither is ever above or below a limit."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_other_kind(cls, value: Any, info: ValidationInfo) -> Any:
        """Numbers in quotes, and yes and no in quotes, are slips: pydantic would take them for what they may mean."""
        kinds = kinds_of(cls.model_fields[str(info.field_name)].annotation)
        if isinstance(value, str) and kinds <= {int, float, bool, NoneType}:
            raise ValueError(f"is text, not {'true or false' if bool in kinds else 'a number'}: leave out the quotes")
        if isinstance(value, bool) and kinds <= {int, float, NoneType}:
            raise ValueError("is true or false, not a number")
        return value


def kinds_of(annotation: Any) -> set[Any]:
    """The plain types that a key's annotation is made of: {float, NoneType} of `Share | None`, {str} of a Literal."""
    if get_origin(annotation) is Literal:
        return {type(value) for value in get_args(annotation)}
    if get_origin(annotation) in (UnionType, Union):
        return {kind for inner in get_args(annotation) for kind in kinds_of(inner)}
    return kinds_of(get_args(annotation)[0]) if get_origin(annotation) is Annotated else {annotation}


class SafeAction(StrEnum):
    """What happens to a part that nobody judged. The controller is configured with it too, and enforces it."""

    REJECT = "reject"
    ACCEPT = "accept"


class Automation(StrEnum):
    """Who decides. A part that waits for a person gets the safe action when the deadline passes first."""

    FULL = "full"  # the model; what people say is kept as a label
    PARTIAL = "partial"  # the model where it is sure, a person where it is not
    HUMAN_ONLY = "human_only"  # a person; what the model says is recorded beside it


class CheckPictures(StrEnum):
    """What is asked of a part's picture before the model is."""

    ALL = "all"  # whether it shows anything, and whether it is another one than the part's before
    CONTENT = "content"  # whether it shows anything; the same picture may come again
    OFF = "off"


class StationConfig(Section):
    name: Name = Field("demo-box", description="name of this box in records and telemetry")
    site: Name = Field("demo-site", description="site (ISA-95) the box stands on")
    line: Name = Field("line-1", description="line (ISA-95) the box inspects")


class SimCameraConfig(Section):
    attach: Text = Field("", description="socket of a simulated line that already runs; empty starts one with the box")


class FolderCameraConfig(Section):
    path: Text = Field("", description="directory of pictures, shown one for each part in order of name")


class VideoCameraConfig(Section):
    path: Text = Field("", description="video file, played over and over")


class V4l2CameraConfig(Section):
    path: Text = Field("", description="device, best by id: /dev/v4l/by-id/...; empty: the first camera")


class CameraConfig(Section):
    """What is asked of any camera; what one driver alone understands is in the section of its name."""

    driver: Literal["sim", "folder", "video", "v4l2"] = Field("sim", description="which camera driver feeds the line")
    name: Name = Field("cam0", description="name of the camera in records")
    width: int = Field(1280, ge=16, le=8192, description="frame width in pixels asked from the driver")
    height: int = Field(720, ge=16, le=8192, description="frame height in pixels asked from the driver")
    fps: float = Field(30.0, gt=0, le=1000, description="frames per second asked from a free-running camera")
    exposure_us: int = Field(
        0, ge=0, le=1_000_000, description="fixed exposure in microseconds; 0 leaves it to the driver"
    )
    pair_by: Literal["auto", "part", "encoder", "time"] = Field(
        "auto", description="how a frame finds its part; auto takes what the driver stamps"
    )
    delay_ms: float = Field(0.0, ge=0, le=10_000, description="time from photo-eye to exposure, for pairing by time")
    tolerance_ms: float = Field(20.0, gt=0, le=1000, description="largest distance between frame and part, by time")
    tolerance_counts: int = Field(
        40, ge=0, le=100_000, description="largest distance between frame and part, by encoder"
    )
    lost_after_s: float = Field(
        2.0, gt=0, le=600, description="silence with parts passing after which the camera is reopened"
    )
    check_pictures: CheckPictures = Field(
        CheckPictures.ALL,
        description="what is asked of a picture before the model: all (does it show anything, is it a new one), "
        "content (only the first: for a folder of one picture), off (nothing)",
    )
    sim: SimCameraConfig = Field(SimCameraConfig(), description="driver sim: a camera over the simulated belt")
    folder: FolderCameraConfig = Field(FolderCameraConfig(), description="driver folder: real pictures as parts")
    video: VideoCameraConfig = Field(VideoCameraConfig(), description="driver video: a film as a free-running camera")
    v4l2: V4l2CameraConfig = Field(V4l2CameraConfig(), description="driver v4l2: a USB or CSI camera")


class LineFaults(Section):
    """Fault injection for the simulated line. Shares are of parts unless said otherwise; all from the seed."""

    drop_frames: Share = Field(0.0, description="share of parts whose frame never arrives")
    late_trigger_ms: float = Field(0.0, ge=0, le=1000, description="delay of trigger events on their way to the box")
    lose_acks: Share = Field(0.0, description="share of controller answers lost on the wire")
    flip_bytes: Share = Field(0.0, description="share of bytes on the wire, both ways, with one bit flipped")
    light_drift: float = Field(0.0, ge=-0.9, le=2.0, description="change of the lamp per 1000 parts, 0.1 is +10 %")
    focus_drift_px: float = Field(0.0, ge=0, le=20, description="growth of focus blur per 1000 parts, in pixels")
    camera_stops_at: int = Field(0, ge=0, description="part at which the camera goes silent; 0 never")
    camera_stops_for: int = Field(0, ge=0, description="number of parts for which it stays silent")
    lamp_fails_at: int = Field(0, ge=0, description="part at which the lamp fails; 0 never")
    lamp_fails_for: int = Field(0, ge=0, description="number of parts for which it does")
    lamp_flicker: Share = Field(0.0, description="share of parts at which the lamp fails, here and there")
    lamp_left: float = Field(
        0.01, ge=0, le=4, description="light that a failing lamp gives; 1 is the usual, 3 too much"
    )
    camera_freezes_at: int = Field(
        0, ge=0, description="part from which the camera repeats the picture before; 0 never"
    )
    camera_freezes_for: int = Field(0, ge=0, description="number of parts for which it does")
    blurred_at: int = Field(0, ge=0, description="part at which the lens is fogged or out of focus; 0 never")
    blurred_for: int = Field(0, ge=0, description="number of parts for which it is")
    blurred_px: float = Field(8.0, ge=0, le=60, description="that blur, as a Gaussian's sigma in pixels")
    engine: Literal["", "hang", "raise", "garbage", "slow"] = Field("", description="fault of the inference engine")
    engine_fault_every: int = Field(20, ge=1, description="the engine fault strikes each so many parts")
    engine_slow_ms: float = Field(200.0, ge=0, le=60_000, description="extra time of a slow inference")
    stuck_gate: Share = Field(0.0, description="share of reject pulses at which the gate does not move")


class WorldConfig(Section):
    """The simulated belt, its parts and the faults injected into it. Used by drivers named `sim`."""

    seed: int = Field(1, ge=0, le=2**31 - 1, description="everything simulated follows from it")
    parts_per_s: float = Field(10.0, gt=0, le=200, description="parts passing the photo-eye per second")
    counts_per_s: int = Field(2000, ge=100, le=20_000, description="encoder counts per second: the belt's speed")
    defect_share: Share = Field(0.15, description="share of parts with a scratch")
    oil_share: Share = Field(0.05, description="share of parts with an oil drop (no defect)")
    stain_share: Share = Field(0.05, description="share of parts with a stain (no defect)")
    light: float = Field(1.0, ge=0, le=4, description="gain of the lamp; 1 is the light the model was made for")
    bad_days: LineFaults = Field(LineFaults(), description="fault injection: what goes wrong on the simulated line")


class ControllerConfig(Section):
    """Who holds the verdicts and fires: a microcontroller with our firmware, a PLC, or a simulated one."""

    driver: Literal["sim", "serial"] = Field(
        "sim", description="sim: a simulated controller; serial: a real one on controller.port"
    )
    protocol: Literal["reject", "modbus"] = Field(
        "reject",
        description="reject: the frames of our firmware; modbus: Modbus RTU, any PLC, and our firmware by strap",
    )
    role: Literal["client", "server"] = Field(
        "client", description="modbus: the box polls the PLC (client), or the PLC polls the box (server)"
    )
    unit: int = Field(
        1, ge=1, le=247, description="modbus: unit id of the PLC when the box is client, of the box when it is server"
    )
    port: Text = Field("", description="serial: device, best by id: /dev/serial/by-id/...")
    baud: int = Field(115_200, ge=1200, le=4_000_000, description="line speed in bit/s")
    parity: Literal["none", "even", "odd"] = Field("none", description="parity bit of each character; reject: none")
    rs485_echo: bool = Field(False, description="modbus: the RS-485 adapter hears what it sends itself")
    decide_counts: int = Field(
        900, ge=1, le=2**15, description="encoder counts from photo-eye to the point of decision"
    )
    fire_counts: int = Field(1000, ge=1, le=2**15, description="encoder counts from photo-eye to the reject gate")
    pulse_counts: int = Field(40, ge=1, le=10_000, description="length of the reject pulse in encoder counts")
    confirm_counts: int = Field(
        0,
        ge=0,
        le=2**15,
        description="counts behind the gate in which the reject sensor must see the part; 0: no sensor",
    )
    watchdog_ms: int = Field(
        500,
        ge=50,
        le=10_000,
        description="silence of the box after which the controller trips and gives each part its default",
    )
    debounce_counts: int = Field(
        0, ge=0, le=2**15, description="the photo-eye breaking again closer than this to a part is the same part"
    )
    inputs: tuple[Literal["bin_full", "air_low"], ...] = Field(
        (), description="inputs that are wired to the controller; a fault of one trips it and keeps it disarmed"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> ControllerConfig:
        if self.driver == "serial" and not self.port:
            raise ValueError("driver 'serial' needs port; ls -l /dev/serial/by-id/ lists adapters")
        if self.decide_counts > self.fire_counts:
            raise ValueError(f"decide_counts {self.decide_counts} must not be above fire_counts {self.fire_counts}")
        if self.protocol == "reject" and self.parity != "none":
            raise ValueError(f"parity '{self.parity}' is for protocol 'modbus'; the firmware's frames have none")
        if (self.driver, self.protocol, self.role) == ("sim", "modbus", "client") and self.unit != 1:
            raise ValueError(f"unit {self.unit}: the simulated PLC is unit 1")
        return self


class RemoteModelConfig(Section):
    """An inference server in the house. The box's own model answers when this one is not back in time."""

    url: Text = Field("", description="http://HOST:PORT or https://HOST:PORT of an Open Inference Protocol v2 server")
    model: Text = Field("", description="name of the model on the server; empty: as model.name, without its version")
    version: Text = Field("", description="its version on the server; empty: the one that the server chooses")
    share: float = Field(
        0.5,
        gt=0,
        le=0.7,
        description="part of decision.deadline_ms, from the photo-eye, in which its answer must be back; "
        "then the box's own counts",
    )
    may_leave: bool = Field(False, description="privacy: pictures of parts may leave the box")
    token_file: Text = Field("", description="file with the server's access token (bearer); empty: none")
    ca_file: Text = Field("", description="certificates of the authority that signed the server's; empty: the system's")

    @model_validator(mode="after")
    def _can_be_asked(self) -> RemoteModelConfig:
        if self.url and not _is_web_address(self.url):
            raise ValueError(
                "url must be http://HOST:PORT or https://HOST:PORT, without user and password, not "
                f"{self.url.rpartition('@')[2]!r}"
            )
        is_open = self.url.startswith("http://") and urlsplit(self.url).hostname not in LOOPBACK
        if self.token_file and is_open:
            raise ValueError("token_file over http:// would tell the token to everybody on the way: use https://")
        return self


class ModelConfig(Section):
    name: Text = Field("scratch", description="bundle that judges: NAME is its promoted version; or NAME@VERSION")
    store: Text = Field(
        "", description="folder of installed bundles; empty: models/ of the state folder, then the shipped ones"
    )
    predictor: Literal["local", "remote"] = Field(
        "local",
        description="who is asked: the box's own model alone (local), or an inference server first (remote), "
        "with the own model's answer at hand",
    )
    remote: RemoteModelConfig = Field(RemoteModelConfig(), description="the inference server of predictor remote")
    runtime: Literal["auto", "litert", "tflite"] = Field(
        "auto", description="TFLite runtime; auto takes the faster one"
    )
    threads: int = Field(
        1, ge=1, le=16, description="inference threads; more than one rarely helps, measure with `bench`"
    )
    delegate: Text = Field("", description="shared library of an external delegate, such as libedgetpu.so.1")
    warm_up: int = Field(3, ge=0, le=100, description="invocations before the line is ready")

    @model_validator(mode="after")
    def _has_server(self) -> ModelConfig:
        if self.predictor == "remote" and not self.remote.url:
            raise ValueError("predictor 'remote' needs remote.url, such as http://gpu.plant.example:8000")
        return self


class ModelStoreConfig(Section):
    require_signature: bool = Field(
        True,
        description="only bundles of a signed repository, taught on this box or shipped come to work; "
        "false: any, and those that are not signed are shown as that",
    )


class UpdatesConfig(Section):
    """Signed updates of models, see UPDATES.md. Nothing is put to work by them: a release becomes the candidate."""

    source: Text = Field("", description="the update repository: https://HOST/PATH or a folder; empty: none")
    root: Text = Field(
        "/etc/edge-runtime/updates/root.json", description="the repository's root.json that this box trusts"
    )
    fetch: Literal["never", "check", "download"] = Field(
        "never", description="what `sync` does by itself: look for a release, or fetch it as well; it installs none"
    )
    every_h: float = Field(24.0, ge=0.05, le=720, description="hours between two looks of `sync`, give or take a tenth")
    ca_file: Text = Field("", description="certificates of the authority that signed the server's; empty: the system's")
    proxy: Text = Field(
        "", description="http://HOST:PORT of a proxy; empty: what the environment says (https_proxy, no_proxy)"
    )


class DecisionConfig(Section):
    accept_below: Share | None = Field(
        None, description="score under which a part is accepted; empty: the bundle's own"
    )
    reject_at: Share | None = Field(None, description="score from which a part is rejected; empty: the bundle's own")
    deadline_ms: float = Field(
        300.0, gt=0, le=60_000, description="time from photo-eye to verdict; after it the part is unsure"
    )
    automation: Automation = Field(
        Automation.FULL, description="who decides: full (the model), partial (a person where it is unsure), human_only"
    )
    safe_action: SafeAction = Field(
        SafeAction.REJECT, description="what happens to parts that are unsure, or have no verdict in time"
    )
    queue_parts: int = Field(
        8, ge=1, le=1000, description="parts that may wait for the model before overload is declared"
    )
    stage_budget_ms: float = Field(
        150.0, gt=0, le=60_000, description="time after which a working stage is hung and replaced"
    )

    @model_validator(mode="after")
    def _in_order(self) -> DecisionConfig:
        if self.accept_below is not None and self.reject_at is not None and self.accept_below > self.reject_at:
            raise ValueError(f"accept_below {self.accept_below} is above reject_at {self.reject_at}")
        return self


class RecordingConfig(Section):
    state_dir: Text = Field(
        "", description="journal, evidence and models; empty: STATE_DIRECTORY or ~/.local/state/edge-runtime"
    )
    evidence: bool = Field(True, description="keep pictures of parts (evidence)")
    good_share: Share = Field(0.02, description="share of accepted parts whose picture is kept")
    format: Literal["jpeg", "png"] = Field(
        "jpeg", description="kept pictures: jpeg is small; png is lossless, so that a replay gives identical decisions"
    )
    jpeg_quality: int = Field(85, ge=30, le=100, description="JPEG quality of kept pictures")
    quota_mb: int = Field(2000, ge=10, description="space for pictures; past it the least valuable go first")
    keep_days_reject: int = Field(
        90,
        ge=1,
        le=3650,
        description="days to keep pictures of rejected and unsure parts; days that the box is on, see RETENTION.md",
    )
    keep_days_good: int = Field(7, ge=1, le=3650, description="the same for accepted parts")
    keep_days_journal: int = Field(365, ge=1, le=3650, description="the same for rows of the journal")


class SparkplugConfig(Section):
    """Live tags: the box as a Sparkplug B edge node, for SCADA systems."""

    enabled: bool = Field(True, description="publish live tags while the uplink is enabled")
    group: Name | Literal[""] = Field("", description="Sparkplug group id; empty: the station's site")
    primary_host: Name | Literal[""] = Field(
        "", description="host application without which no tags are published, by its id; empty: always"
    )
    commands: bool = Field(
        False,
        description="hosts may lower automation and roll back; only the broker's access list says who they are",
    )
    servers: tuple[Annotated[str, Field(pattern=r"^[^\s/:]+:\d{1,5}$")], ...] = Field(
        (), description="brokers to walk for the primary host, as HOST:PORT; empty: sync.host and sync.port"
    )


class SyncConfig(Section):
    """The uplink. A credential is a path; a bare name is looked for in systemd's CREDENTIALS_DIRECTORY."""

    enabled: bool = Field(False, description="deliver records over MQTT; `edge-runtime sync` does it")
    host: Text = Field("127.0.0.1", description="name or address of the MQTT broker")
    port: int = Field(1883, ge=1, le=65_535, description="port of the MQTT broker; 8883 is usual with TLS")
    protocol: Literal["auto", "5", "3.1.1"] = Field(
        "auto", description="MQTT version; auto tries 5 and falls back to 3.1.1"
    )
    client_id: Text = Field("", description="MQTT client id for records; empty: edge- and the name of the station")
    machine_id: Text = Field(
        "", description="names this machine, not its card, where hardware does not; empty: serial numbers and addresses"
    )
    keepalive_s: int = Field(30, ge=5, le=3600, description="silence after which the link is proven with a ping")
    username: Text = Field("", description="MQTT user name; empty where the certificate says who the box is")
    password_file: Text = Field("", description="file with the MQTT password")
    tls: bool = Field(False, description="speak TLS 1.3 to the broker")
    ca_file: Text = Field(
        "",
        description="certificates of the authority that signed those of broker and picture server; empty: the system's",
    )
    cert_file: Text = Field("", description="this box's certificate, for mutual TLS")
    key_file: Text = Field("", description="private key of this box's certificate")
    window: int = Field(
        100, ge=1, le=10_000, description="records under way without an acknowledgement at a time, at most"
    )
    ack: Literal["puback", "consumer"] = Field(
        "puback", description="when a record is delivered: broker has it, or the consumer's acknowledgement names it"
    )
    ack_timeout_s: float = Field(20.0, gt=0, le=600, description="wait for an acknowledgement before reconnecting")
    resend_after_s: float = Field(
        60.0, gt=0, le=86_400, description="with ack consumer: wait for its acknowledgement before records go again"
    )
    reconnect_max_s: float = Field(60.0, gt=0, le=3600, description="longest wait between attempts to connect")
    read_back: bool = Field(
        True,
        description="prove at each connection that the broker keeps records: read one's own; false: take its word",
    )
    max_packet_bytes: int = Field(
        0, ge=0, le=268_435_455, description="largest MQTT packet that is sent; 0: what an MQTT 5 broker says it takes"
    )
    quota_mb: int = Field(1000, ge=5, description="space for records that wait; past it they stay in the journal")
    metrics_every_s: float = Field(60.0, ge=0, le=86_400, description="time between metrics records; 0: none")
    evidence: Literal["off", "mqtt", "http"] = Field("off", description="how pictures of parts are uploaded")
    evidence_url: Text = Field("", description="http: folder the pictures are PUT into, https://host:port/path")
    evidence_verdicts: tuple[Literal["accept", "reject", "unsure"], ...] = Field(
        ("reject", "unsure"), description="verdicts whose pictures are uploaded without being asked for"
    )
    evidence_kb_s: float = Field(200.0, gt=0, le=1_000_000, description="most kilobytes of pictures a second")
    evidence_hours: str = Field(
        "",
        pattern=r"^(([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d)?$",
        description="local time in which pictures are sent, such as 22:00-05:00; empty: at any time",
    )
    metered: bool = Field(False, description="the uplink is paid by volume: pictures go only when asked for")
    commands: Literal["off", "nonce", "signature"] = Field(
        "off",
        description="commands from the cloud, beside the broker's access list: one-time word or Ed25519 signature",
    )
    keys: Text = Field(
        "/etc/edge-runtime/keys", description="signature: folder of public keys, NAME.pub, that may give commands"
    )
    sparkplug: SparkplugConfig = Field(SparkplugConfig(), description="live tags, Sparkplug B")

    @model_validator(mode="after")
    def _fits_together(self) -> SyncConfig:
        if "/" in self.host or "@" in self.host:
            raise ValueError("host is the name or address of the broker alone, such as mqtt.plant.example")
        if (self.evidence == "http" or self.evidence_url) and not _is_web_address(self.evidence_url):
            raise ValueError(
                "evidence 'http' needs evidence_url, https://host:port/path without user and password, not "
                f"{self.evidence_url.rpartition('@')[2]!r}"
            )
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file belong together: give both or neither")
        if self.cert_file and not self.tls:
            raise ValueError("cert_file is of use with TLS only: set tls = true")
        return self


def _is_web_address(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and "@" not in url.netloc and url.port != 0
    except ValueError:  # of a port that is none
        return False


class SoundConfig(Section):
    """The sound of the machine, against what it learnt is normal. Advice and a metric; see `data learn-sound`."""

    model: Text = Field("", description="bundle of kind sound_anomaly, as NAME or NAME@VERSION; empty: nobody listens")
    alarm_at: Share = Field(0.5, description="smoothed score from which the machine sounds abnormal")
    normal_below: Share = Field(0.4, description="smoothed score under which it sounds normal again")
    smooth_s: float = Field(10.0, ge=0, le=3600, description="time constant of the smoothing in seconds; 0: none")
    alarm_after_s: float = Field(30.0, ge=0, le=86_400, description="abnormal for so long before advice is given")
    normal_after_s: float = Field(
        30.0, ge=0, le=86_400, description="how long it must sound normal before that is told"
    )
    refractory_s: float = Field(600.0, ge=0, le=86_400, description="pause after an alarm has gone before the next one")
    reject: bool = Field(False, description="ask for parts to be rejected while the machine sounds abnormal")

    @model_validator(mode="after")
    def _in_order(self) -> SoundConfig:
        if self.normal_below > self.alarm_at:
            raise ValueError(f"normal_below {self.normal_below} is above alarm_at {self.alarm_at}")
        return self


class ServiceConfig(Section):
    socket: Text = Field("", description="control socket; empty: control.sock in RUNTIME_DIRECTORY or the state folder")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe line that is logged"
    )


class ServeConfig(Section):
    """The box's HTTP server: open to whoever is on the box, and to the network with TLS and token only.

    Credentials as in `sync`.
    """

    host: Text = Field("127.0.0.1", description="address that is listened on; 0.0.0.0 or :: is the network, with tls")
    port: int = Field(8080, ge=0, le=65_535, description="port that is listened on; 0: any free one, which is told")
    tls: bool = Field(False, description="speak TLS; where cert_file is empty with a certificate of the box's own")
    cert_file: Text = Field("", description="certificate of a site's own authority, PEM, with its chain")
    key_file: Text = Field("", description="private key of that certificate, PEM")
    allowed_hosts: tuple[Name, ...] = Field(
        (), description="further names by which clients may call this box, such as that of a reverse proxy"
    )
    trusted_proxies: tuple[Text, ...] = Field(
        (), description="addresses or networks of reverse proxies whose X-Forwarded-For is believed"
    )
    loopback_login: bool = Field(
        False,
        description="whoever comes from loopback needs a token or a session, as everybody does: for a box with several "
        "users, or with a tunnel or a proxy that adds no header, behind which everybody comes from loopback",
    )
    shifts: tuple[Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")], ...] = Field(
        ("06:00", "14:00", "22:00"),
        min_length=1,
        description="local times at which shifts begin: since when the pages count",
    )
    max_body_mb: int = Field(32, ge=1, le=1024, description="largest body of a request, packed or unpacked")
    body_s: float = Field(30.0, gt=0, le=3600, description="time for a request's body to come in")
    max_connections: int = Field(128, ge=4, le=900, description="connections at a time; further ones are turned away")
    requests_per_s: float = Field(
        50.0,
        gt=0,
        le=100_000,
        description="requests of one address a second, in the long run; loopback has no limit unless loopback_login",
    )
    models_mb: int = Field(
        400, ge=16, le=65_536, description="memory for models that are asked over HTTP; past it the idlest ones go"
    )
    invoke_s: float = Field(
        10.0, gt=0, le=600, description="time of one inference, after which its interpreter is given up as hung"
    )
    files: Text = Field(
        "",
        description="folder of bare .tflite files that nobody vouches for: each is served by its name, from a child "
        "process; empty: none",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> ServeConfig:
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file belong together: give both or neither")
        if self.cert_file and not self.tls:
            raise ValueError("cert_file is of use with TLS only: set tls = true")
        if not self.tls and not _is_loopback(self.host):
            raise ValueError(
                f"host '{self.host}' is open to the network, and without TLS everybody there could read the token: "
                'set tls = true (a certificate is made where cert_file is empty), or host = "127.0.0.1"'
            )
        return self


def _is_loopback(host: str) -> bool:
    """No name is looked up."""
    try:
        return host.lower() == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class SoundFaults(Section):
    """Fault injection for the simulated microphone."""

    fault: Literal["", "silence", "clipping", "free_run", "hang", "disconnect"] = Field(
        "", description="what goes wrong: digital silence, overdriven input, sound too fast, no sound, device gone"
    )
    at_s: float = Field(5.0, ge=0, le=86_400, description="seconds of sound after which it goes wrong")
    for_s: float = Field(5.0, gt=0, le=86_400, description="seconds until the microphone works again")


class SimSoundConfig(Section):
    """What the simulated microphone hears: words of a folder, or spoken-like bursts, over noise."""

    seed: int = Field(1, ge=0, le=2**31 - 1, description="all simulated sound follows from it")
    words_per_min: float = Field(20.0, ge=0, le=120, description="words or bursts per minute; 0 is noise alone")
    speech_dbfs: float = Field(-20.0, ge=-60, le=-3, description="loudness of speech relative to full scale")
    noise: Literal["white", "hum", "clanks"] = Field(
        "white", description="steady hiss, mains hum with its harmonics, or hum with blows of metal"
    )
    noise_dbfs: float = Field(-60.0, ge=-90, le=-3, description="loudness of the noise relative to full scale")
    bad_days: SoundFaults = Field(SoundFaults(), description="fault injection: what goes wrong with it, and when")


class MicrophoneConfig(Section):
    """The station's ear. Whatever happens to it, the camera line never waits for it."""

    driver: Literal["off", "sim", "wav", "pyaudio"] = Field("off", description="which microphone driver is used")
    name: Name = Field("mic0", description="name of the microphone in records")
    device: Text = Field(
        "", description="pyaudio: part of the device's name, as `io microphones` lists it; empty: the system's default"
    )
    rate_hz: Literal[8000, 16_000, 32_000, 48_000] = Field(16_000, description="samples per second of what is heard")
    frame_ms: Literal[10, 20, 30] = Field(30, description="length of one chunk in milliseconds")
    file: Text = Field("", description="wav, and words for sim: a WAV file, or a folder of them in order of name")
    paced: bool = Field(True, description="wav: in real time; false hands sound out as fast as it is read")
    loops: bool = Field(True, description="wav: start again at the end")
    gap_ms: int = Field(500, ge=0, le=60_000, description="wav: silence after each file in milliseconds")
    silent_after_s: float = Field(
        4.0, ge=0, le=600, description="digital silence or a stuck value for so long is a fault; 0 never"
    )
    retry_max_s: float = Field(10.0, ge=0.1, le=600, description="longest wait before a lost device is opened again")
    sim: SimSoundConfig = Field(SimSoundConfig(), description="what the simulated microphone hears")


class RemoteSpeechConfig(Section):
    """A speech server in the house. The box's own model answers when this one is not back in time."""

    url: Text = Field(
        "", description="tcp://HOST:PORT speaks Wyoming, http://HOST:PORT the Open Inference Protocol; empty: none"
    )
    model: Text = Field("asr", description="name of the model on the server")
    share_ms: float = Field(400.0, gt=0, le=10_000, description="time the server has to answer")
    may_leave: bool = Field(False, description="privacy: raw sound of operators may leave the box")

    @model_validator(mode="after")
    def _allowed(self) -> RemoteSpeechConfig:
        if self.url and not self.url.startswith(("tcp://", "http://", "https://")):
            raise ValueError(f"url {self.url!r} must begin with tcp:// (Wyoming) or http:// (Open Inference Protocol)")
        if self.url and not self.may_leave:
            raise ValueError("a speech server hears operators: set may_leave = true, or clear url")
        return self


class VoiceConfig(Section):
    """The operator's voice. Listens when the microphone has a driver; commands count only inside a window."""

    model: Text = Field("commands-embed", description="keyword bundle, as NAME or NAME@VERSION")
    wake: Text = Field(
        "hey_jarvis",
        description="wake word: a name of pymicro-wakeword, or a path to a model's JSON; empty: the talk key only",
    )
    wake_at: Share | None = Field(
        None, description="mean probability from which the wake word counts; not set: what its makers measured"
    )
    window_s: float = Field(3.0, ge=1, le=30, description="time to begin speaking after the wake word or the key")
    cancel_s: float = Field(1.5, ge=0, le=10, description="time in which a command can be taken back")
    show_s: float = Field(30.0, ge=1, le=600, description="how long search results stay on the screen")
    speaker: Text = Field("", description="ALSA device that beeps, such as plughw:1; empty: silent")
    talk_gpio: Text = Field(
        "", pattern=r"^([A-Za-z0-9_./-]+:\d+)?$", description="talk key on a GPIO line, as CHIP:LINE; empty: none"
    )
    keep_audio: bool = Field(False, description="privacy: keep the sound of requests (the words alone are always kept)")
    keep_days_audio: int = Field(7, ge=1, le=365, description="days, that the box is on, to keep that sound")
    grammar: Literal["auto", "off"] = Field(
        "auto", description="auto: words of the catalogue are understood where pocketsphinx is installed"
    )
    remote: RemoteSpeechConfig = Field(RemoteSpeechConfig(), description="a speech server in the house")


class EdgeConfig(Section):
    """A whole station. Every section may be left out."""

    station: StationConfig = Field(StationConfig(), description="who this box is")
    camera: CameraConfig = Field(CameraConfig(), description="where pictures come from")
    controller: ControllerConfig = Field(ControllerConfig(), description="who holds the verdicts and fires the gate")
    model: ModelConfig = Field(ModelConfig(), description="what judges the pictures")
    modelstore: ModelStoreConfig = Field(ModelStoreConfig(), description="which models may come to work")
    updates: UpdatesConfig = Field(UpdatesConfig(), description="where signed models come from")
    decision: DecisionConfig = Field(DecisionConfig(), description="how scores become verdicts, and by when")
    voice: VoiceConfig = Field(VoiceConfig(), description="what operators may say, and how they are heard")
    recording: RecordingConfig = Field(RecordingConfig(), description="what is kept, where and how long")
    sync: SyncConfig = Field(SyncConfig(), description="the uplink: records and pictures to an MQTT broker")
    sound: SoundConfig = Field(SoundConfig(), description="how the machine is listened to")
    service: ServiceConfig = Field(ServiceConfig(), description="how the daemon is reached")
    serve: ServeConfig = Field(ServeConfig(), description="the HTTP server: prediction API and pages")
    world: WorldConfig = Field(WorldConfig(), description="the simulated line")
    microphone: MicrophoneConfig = Field(MicrophoneConfig(), description="where sound comes from")
