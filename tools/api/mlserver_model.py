"""A .tflite file as a model of mlserver, so that it and the box can be asked the same. Loaded by mlserver itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor

KINDS = {"float32": "FP32", "int8": "INT8", "uint8": "UINT8"}


class Tflite(MLModel):  # type: ignore[misc,unused-ignore]
    async def load(self) -> bool:
        self._interpreter = Interpreter(model_path=str(self._settings.parameters.uri), num_threads=1)
        self._interpreter.allocate_tensors()
        self._ins, self._outs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self.inputs = [_about(one) for one in self._ins]
        self.outputs = [_about(one) for one in self._outs]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = {one.name: NumpyCodec.decode_input(one) for one in payload.inputs}
        for one in self._ins:
            self._interpreter.set_tensor(one["index"], np.asarray(given[one["name"]], one["dtype"]))
        self._interpreter.invoke()
        outputs = [
            NumpyCodec.encode_output(one["name"], self._interpreter.get_tensor(one["index"])) for one in self._outs
        ]
        return InferenceResponse(model_name=self.name, model_version=self.version, id=payload.id, outputs=outputs)


def _about(details: Any) -> Any:
    datatype = KINDS[np.dtype(details["dtype"]).name]
    return MetadataTensor(name=details["name"], datatype=datatype, shape=[int(size) for size in details["shape"]])
