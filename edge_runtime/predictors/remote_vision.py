"""How a bundle reads what its model, served elsewhere, says: the same preparation, decoder and limits as on the box.

Only the middle is done by the server: it gets the tensor that the box's own model would get, and its raw outputs go
through the bundle's decoder. So it must serve the same kind of model. Names may differ, numbers may be real ones where
the box's own are 8-bit (the same network before quantisation); shapes must be the same. What a description lacks,
quantisation, is that of the bundle's own model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.core.errors import ModelError, ProtocolError
from edge_runtime.core.manifest import Kind
from edge_runtime.core.messages import Prediction
from edge_runtime.features.image import Geometry, Prepare
from edge_runtime.inference.double_activation import refuse_shares
from edge_runtime.inference.picture_wire import ServedModel, TensorForm, dtype_of
from edge_runtime.inference.tensors import Tensor
from edge_runtime.modelstore.bundle import Bundle
from edge_runtime.predictors.vision import FrameDecoder, make_prepare, refuse_tiny, trial_pictures

TRIALS = 4  # pictures of `trial_pictures`
ACTIVATED = (Kind.CLASSIFICATION, Kind.HEATMAP)  # kinds whose decoder applies output.activation
FIX = "serve the bundle's own model, or set model.remote.model and version"


class RemoteReading:
    """See the module; inference/remote_session.Reading. One for each bundle, however often its model is opened."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._inputs: Sequence[Tensor] = ()
        self._outputs: Sequence[Tensor] = ()

    def learn(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """The tensors of the bundle's own model, which is open now; before anything fits."""
        self._inputs, self._outputs = inputs, outputs

    def fit(self, served: ServedModel) -> FittedVision:
        """Raises ModelError when that model is of another kind."""
        what = f"{served.name} on the server is not the model of {self._bundle.label}"
        try:
            if len(served.inputs) != 1:
                raise ModelError(f"it has {len(served.inputs)} inputs, a picture model has one")
            prepare = self._preparation(served.inputs[0])
            order = _order(self._outputs, served.outputs)
            outputs = [_as_told(own, served.outputs[there]) for own, there in zip(self._outputs, order, strict=True)]
            return FittedVision(self._bundle, prepare, outputs, order)
        except (ModelError, ProtocolError) as err:
            raise ModelError(f"{what}: {err}", FIX) from err

    def trial_pictures(self) -> Sequence[NDArray[np.uint8]]:
        """No parts, and nothing of the station: black, white, noise."""
        spec = self._bundle.manifest.input
        assert spec is not None  # its own model could not have been opened
        return trial_pictures(spec)

    def _preparation(self, there: TensorForm) -> Prepare:
        own = self._inputs[0]
        if not there.fits(own.shape):
            raise ModelError(f"its input is {there}, the bundle's {own}")
        dtype = dtype_of(there.datatype)
        if dtype == own.dtype:
            return make_prepare(self._bundle.manifest.input, self._inputs)
        if dtype == np.float32 and own.is_quantised:
            return make_prepare(self._bundle.manifest.input, [Tensor(own.name, dtype, own.shape)])
        raise ModelError(f"its input is {there}, the bundle's {own}")


class FittedVision:
    """For one thread that prepares and one that decodes."""

    def __init__(self, bundle: Bundle, prepare: Prepare, outputs: Sequence[Tensor], order: Sequence[int]) -> None:
        """order: for each output of the bundle, which one of the server's it is."""
        self._label = bundle.label
        self._order = order
        self._tensors = outputs
        self._kind = bundle.manifest.kind
        self._activation = bundle.manifest.output.activation if bundle.manifest.output else "none"
        self._trials: list[NDArray[np.float32]] = []  # raw outputs for the trial pictures, the first that are asked
        self._decode = FrameDecoder(bundle, outputs)
        self._prepare = prepare

    def prepare(self, image: NDArray[np.uint8]) -> tuple[NDArray[Any], Geometry]:
        """Raises ModelError for a picture that the bundle's own model would not judge either."""
        refuse_tiny(image, self._prepare.spec)
        return self._prepare(image)

    def prediction(self, outputs: tuple[NDArray[Any], ...], place: Geometry, origin: str, took_ms: float) -> Prediction:
        """Raises ModelError when the outputs are no sensible answer."""
        ordered = [outputs[there] for there in self._order]
        if self._kind in ACTIVATED and len(self._trials) < TRIALS * len(ordered):
            self._refuse_second_activation(ordered)
        finding = self._decode(ordered, place)
        return Prediction(
            model=self._label,
            score=finding.score,
            scores=finding.scores,
            regions=finding.regions,
            heat=finding.heat,
            timings_ms={"remote": took_ms},
            origin=origin,
        )

    def _refuse_second_activation(self, outputs: Sequence[NDArray[Any]]) -> None:
        """The graph is not here to be looked at, so how it answers pictures as different as can be has to tell."""
        self._trials += [tensor.dequantise(raw) for tensor, raw in zip(self._tensors, outputs, strict=True)]
        if len(self._trials) == TRIALS * len(outputs):
            refuse_shares(self._trials, self._activation)


def _order(own: Sequence[Tensor], there: Sequence[TensorForm]) -> tuple[int, ...]:
    """By name where the server knows all of them, else as they come."""
    if len(own) != len(there):
        raise ModelError(f"it has {len(there)} outputs, the bundle's model {len(own)}")
    at = {form.name: index for index, form in enumerate(there)}
    names = [tensor.name for tensor in own]
    return tuple(at[name] for name in names) if set(names) == set(at) else tuple(range(len(own)))


def _as_told(own: Tensor, there: TensorForm) -> Tensor:
    dtype = dtype_of(there.datatype)
    if there.fits(own.shape):
        if dtype == own.dtype:
            return own
        if dtype.kind == "f":
            return Tensor(own.name, dtype, own.shape)
    raise ModelError(f"its output is {there}, the bundle's {own}")
