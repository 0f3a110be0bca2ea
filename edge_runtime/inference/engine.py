"""The TFLite engine: the one file that knows which runtime is installed.

`ai-edge-litert` where it is installed, else `tflite-runtime`: the same int8 MobileNetV2 takes 3.3 ms with the former
and 58 ms with the latter on x86-64, because its wheels hand no int8 operators to XNNPACK. Always the classic
`Interpreter`: its `invoke` releases the GIL, `CompiledModel.run` holds it for the whole inference at the same speed.

Inputs go in by `set_tensor`, outputs come out by `get_tensor`. Writing into a view of the tensor instead does not pay:
0.9-11 us by set_tensor, 1.2-12 us by view, of invokes of 220-9000 us (tools/bench/engine --copies); and a view that is
still alive makes the next invoke fail.

The model is read into memory once and the interpreter runs from that copy: a file that is replaced or truncated later
cannot reach a running model.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import logging
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import ModelError
from edge_runtime.inference.tensors import Tensor

log = logging.getLogger(__name__)

RuntimeName = Literal["auto", "litert", "tflite"]

_PACKAGES = {"litert": "ai-edge-litert", "tflite": "tflite-runtime"}  # fastest first
_MODULES = {"litert": "ai_edge_litert", "tflite": "tflite_runtime"}
MAX_MODEL_BYTES = 512 << 20
_FLATBUFFER_MARK = slice(4, 8)
_CARRIERS = {  # operators that change where values stand or how they are stored, not what they say
    "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "QUANTIZE", "DEQUANTIZE", "CAST", "CONCATENATION", "PACK",
    "SLICE", "STRIDED_SLICE", "PAD", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "DEPTH_TO_SPACE", "SPACE_TO_DEPTH",
}  # fmt: skip
MOST_CARRIERS = 16  # one behind the other, at the end of a graph
_OTHER_FILES = {
    b"PK": "a zip archive (a Keras or PyTorch file?)",
    b"\x89HDF": "an HDF5 file (a Keras model?)",
    b"\x08": "a protocol buffer (an ONNX or SavedModel file?)",
}


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """One TFLite runtime that is installed. `problem` says what to do before it can work; empty when nothing."""

    name: str  # "litert" or "tflite", as in the station file
    package: str
    version: str
    problem: str = ""

    @property
    def label(self) -> str:
        return f"{self.package} {self.version}"


def installed_runtimes() -> list[RuntimeInfo]:
    """The runtimes of this machine, the faster first. Imports none of them."""
    found = []
    for name, package in _PACKAGES.items():
        if importlib.util.find_spec(_MODULES[name]) is None:
            continue
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version = "unknown"
        found.append(RuntimeInfo(name, package, version, _known_problem(name)))
    return found


def pick_runtime(wanted: RuntimeName = "auto") -> RuntimeInfo:
    """The runtime to use: the faster one that works, or the one asked for. Raises ModelError with the way out."""
    runtimes = installed_runtimes()
    if wanted != "auto":
        runtimes = [runtime for runtime in runtimes if runtime.name == wanted]
        if not runtimes:
            raise ModelError(f"model.runtime is {wanted!r} but {_PACKAGES[wanted]} is not installed")
    if not runtimes:
        raise ModelError("no TFLite runtime is installed", "pip install ai-edge-litert")
    usable = [runtime for runtime in runtimes if not runtime.problem]
    if not usable:
        raise ModelError(f"{runtimes[0].label}: {runtimes[0].problem}")
    return usable[0]


class Engine:
    """One loaded model on one interpreter. For one thread at a time; `invoke` releases the GIL.

    model_path: any .tflite file that somebody vouches for (files nobody vouches for go through `probe` first: a damaged
    one can kill the process). delegate: shared library of an external delegate. sha256: what the file must be; what was
    compared is what runs. signature: which of the file's signatures to run, instead of the graph as it is. input_shape:
    what its only input shall be, where the file leaves sizes open (-1); `input_sizes` are those of the file. Raises
    ModelError.
    """

    def __init__(
        self,
        model_path: str | Path,
        threads: int = 1,
        delegate: str = "",
        runtime: RuntimeName = "auto",
        sha256: str = "",
        signature: str = "",
        input_shape: Sequence[int] = (),
    ) -> None:
        self.path = Path(model_path)
        self._content = _read_model(self.path)
        if sha256 and hashlib.sha256(self._content).hexdigest() != sha256:
            raise ModelError(f"{self.path}: the file was altered since its bundle was opened")
        self.runtime = pick_runtime(runtime)
        self._module = _import_runtime(self.runtime)
        self._threads = threads
        self._delegates = [_load_delegate(self._module, delegate)] if delegate else None
        self._signature, self._input_shape = signature, tuple(input_shape)
        self._has_resources: bool | None = None  # not asked yet
        try:
            self._load()
            inputs, outputs = self._details()
        except ModelError:
            raise
        except Exception as err:  # the runtimes raise ValueError, RuntimeError, SystemError and more
            raise ModelError(f"{self.path}: {_why_not_loaded(str(err), self.runtime)}") from err
        self.inputs = tuple(_tensor(details) for details in inputs)
        self.outputs = tuple(_tensor(details) for details in outputs)
        self.input_sizes = tuple(tuple(int(size) for size in details["shape_signature"]) for details in inputs)
        self._input_ids = tuple(int(details["index"]) for details in inputs)
        self._output_ids = tuple(int(details["index"]) for details in outputs)

    def _load(self) -> None:
        """A fresh interpreter, and the runner of its signature where one was asked for."""
        self._interpreter = self._make_interpreter()
        self._runner = self._make_runner() if self._signature else None

    def _make_interpreter(self) -> Any:
        interpreter = self._module.Interpreter(
            model_content=self._content, num_threads=self._threads, experimental_delegates=self._delegates
        )
        if not self._signature:  # a runner fits its inputs by itself
            self._fit_input(interpreter)
        interpreter.allocate_tensors()
        return interpreter

    def _fit_input(self, interpreter: Any) -> None:
        """Sizes that the file leaves open become those asked for."""
        details = interpreter.get_input_details()
        if len(details) != 1 or len(details[0]["shape"]) != len(self._input_shape):
            return
        if tuple(details[0]["shape"]) != self._input_shape and -1 in details[0]["shape_signature"]:
            interpreter.resize_tensor_input(int(details[0]["index"]), self._input_shape, strict=True)

    def _make_runner(self) -> Any:
        known = self.signatures()
        if self._signature not in known:
            raise ModelError(f"{self.path}: no signature {self._signature!r} (found: {', '.join(known) or 'none'})")
        return self._interpreter.get_signature_runner(self._signature)

    def _details(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Of inputs and outputs, with their shapes as they are at work."""
        if self._runner is not None:
            of_inputs, of_outputs = self._runner.get_input_details(), self._runner.get_output_details()
            self._input_names, self._output_names = tuple(of_inputs), tuple(of_outputs)
            return list(of_inputs.values()), list(of_outputs.values())
        return self._interpreter.get_input_details(), self._interpreter.get_output_details()

    def invoke(self, *inputs: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Run once. One array for each input, of its shape and dtype; the outputs are copies and belong to the caller.

        Raises ModelError when an array does not fit or the runtime fails.
        """
        interpreter = self._interpreter
        try:
            if self._runner is not None:
                said = self._runner(**dict(zip(self._input_names, inputs, strict=True)))
                return tuple([said[name] for name in self._output_names])
            for index, array in zip(self._input_ids, inputs, strict=True):
                interpreter.set_tensor(index, array)
            interpreter.invoke()
            return tuple([interpreter.get_tensor(index) for index in self._output_ids])
        except (ValueError, RuntimeError, TypeError) as err:
            raise ModelError(f"{self.path}: the model failed to run: {_one_line(str(err))}") from err

    def warm_up(self, times: int) -> None:
        """Run on zeros, so that the first real picture is not the slow one. State of streaming models is reset."""
        zeros = [np.zeros(tensor.shape, tensor.dtype) for tensor in self.inputs]
        for _ in range(times):
            self.invoke(*zeros)
        if times:
            self.reset()

    def reset(self) -> None:
        """Forget what a streaming model remembers between invokes.

        `reset_all_variables` reaches variable tensors only. Resource variables (VAR_HANDLE) are set by the graph's own
        initialisation, which runs once in the life of an interpreter, so such a model gets a new one.
        """
        if self._has_resources is None:
            self._has_resources = "VAR_HANDLE" in self.operators()
        if self._has_resources:
            self._load()
        else:
            self._interpreter.reset_all_variables()

    def operators(self) -> tuple[str, ...]:
        """Names of the graph's operators in order; `DELEGATE` stands for each piece handed to a delegate.

        Empty where the runtime does not tell.
        """
        return tuple(str(operator["op_name"]) for operator in self._operators())

    def output_operators(self) -> tuple[str, ...]:
        """Name of the operator that computes each output, behind those that only carry values on.

        Empty where the runtime does not tell, as for a signature; shorter where an output is a constant or an input.
        """
        if self._runner is not None:
            return ()
        makers = {
            int(output): operator
            for operator in self._operators()
            if operator["op_name"] != "DELEGATE"
            for output in operator["outputs"]
        }
        found = []
        for output in self._output_ids:
            operator = makers.get(output)
            for _ in range(MOST_CARRIERS):
                if operator is None or operator["op_name"] not in _CARRIERS:
                    break
                operator = makers.get(int(operator["inputs"][0]))
            if operator is not None:
                found.append(str(operator["op_name"]))
        return tuple(found)

    def _operators(self) -> list[dict[str, Any]]:
        details = getattr(self._interpreter, "_get_ops_details", None)  # the only way to see delegation from Python
        if details is None:
            return []
        try:
            return list(details())
        except (KeyError, ValueError, RuntimeError, IndexError):
            return []

    def signatures(self) -> tuple[str, ...]:
        """Names of the model's signatures; older models have none."""
        return tuple(self._interpreter.get_signature_list() or ())

    @property
    def is_delegated(self) -> bool:
        """Part of the graph runs on XNNPACK or another delegate. False for int8 with tflite-runtime wheels."""
        return "DELEGATE" in self.operators()


def _read_model(path: Path) -> bytes:
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise ModelError(f"{path}: not a plain file")
        if about.st_size > MAX_MODEL_BYTES:
            raise ModelError(f"{path}: {about.st_size >> 20} MB, a model has at most {MAX_MODEL_BYTES >> 20} MB")
        content = path.read_bytes()
    except FileNotFoundError as err:
        raise ModelError(f"{path}: no such model file") from err
    except OSError as err:
        raise ModelError(f"{path}: cannot be read ({err.strerror or err})") from err
    if not content:
        raise ModelError(f"{path}: the file is empty")
    if content[_FLATBUFFER_MARK] != b"TFL3":
        guess = next((f", it looks like {what}" for mark, what in _OTHER_FILES.items() if content.startswith(mark)), "")
        raise ModelError(f"{path}: not a TFLite model (no TFL3 mark at its start){guess}")
    return content


def _import_runtime(runtime: RuntimeInfo) -> ModuleType:
    try:
        if runtime.name == "litert":
            from ai_edge_litert import interpreter
        else:
            from tflite_runtime import interpreter
    except ImportError as err:
        raise ModelError(f"{runtime.label} is installed but cannot be imported: {_one_line(str(err))}") from err
    module: ModuleType = interpreter
    return module


def _load_delegate(module: ModuleType, library: str) -> Any:
    try:
        return module.load_delegate(library)
    except (ValueError, OSError, RuntimeError) as err:
        raise ModelError(
            f"delegate {library!r} cannot be loaded ({_one_line(str(err))})",
            "install it, attach its device, or clear model.delegate",
        ) from err


def _known_problem(name: str) -> str:
    if name == "tflite" and int(np.__version__.split(".")[0]) >= 2:
        return f"it needs numpy below 2 and {np.__version__} is installed; pip install 'numpy<2', or ai-edge-litert"
    return ""


def _why_not_loaded(message: str, runtime: RuntimeInfo) -> str:
    message = _one_line(message)
    if "Select TensorFlow op" in message or "Flex delegate" in message:
        name = _operator_name(message)
        return f"needs TensorFlow's flex operators{name}, which a box does not have; convert with TFLITE_BUILTINS only"
    if "unresolved custom op" in message:
        custom = message.split("custom op:", 1)[1].split(".")[0].split()[0]
        way_out = "set model.delegate, or use the plain model" if "edgetpu" in custom else "convert it without"
        return f"has the custom operator {custom!r}, which {runtime.label} does not know; {way_out}"
    if "numpy" in message.lower() or "_ARRAY_API" in message:
        return f"{runtime.label} does not work with numpy {np.__version__}: {message}"
    if "valid Flatbuffer" in message or "verif" in message.lower() or "schema version" in message:
        return "the file is damaged or cut off (not a valid flatbuffer)"
    return f"{runtime.label} cannot load it: {message}" if message else f"{runtime.label} cannot load it"


def _operator_name(message: str) -> str:
    start, end = message.rfind("("), message.rfind(") failed to prepare")
    return f" ({message[start + 1 : end]})" if 0 <= start < end else ""


def _tensor(details: dict[str, Any]) -> Tensor:
    quantisation = details["quantization_parameters"]
    scales = tuple(float(scale) for scale in quantisation["scales"])
    return Tensor(
        name=str(details["name"]),
        dtype=np.dtype(details["dtype"]),
        shape=tuple(int(size) for size in details["shape"]),
        scales=scales,
        zero_points=tuple(int(zero) for zero in quantisation["zero_points"]),
        axis=int(quantisation["quantized_dimension"]),
    )


def _one_line(message: str) -> str:
    return " ".join(message.split())[:400]
