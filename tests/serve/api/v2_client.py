"""A small client of the protocol, written from its text: what is sent and read here shares no code with the product."""

from __future__ import annotations

import json

import numpy as np

DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
DTYPES = {name: np.dtype(code) for code, name in DATATYPES.items()}
LENGTH = "Inference-Header-Content-Length"


def question(arrays, binary_in=True, **more):
    """Body and headers of a request with these arrays, by name."""
    inputs, blocks = [], []
    for name, array in arrays.items():
        one = {"name": name, "shape": list(array.shape), "datatype": DATATYPES[array.dtype.name]}
        if binary_in:
            blocks.append(array.tobytes())
            one["parameters"] = {"binary_data_size": array.nbytes}
        else:
            one["data"] = array.ravel().tolist()
        inputs.append(one)
    text = json.dumps({"inputs": inputs, **more}).encode()
    return text + b"".join(blocks), ({LENGTH: str(len(text))} if binary_in else {})


def outputs(answer):
    """The arrays of an answer, in order."""
    assert answer.status == 200, answer.body[:300]
    length = int(answer.headers.get(LENGTH.lower(), len(answer.body)))
    about, binary, found = json.loads(answer.body[:length]), answer.body[length:], []
    for one in about["outputs"]:
        dtype = DTYPES[one["datatype"]]
        if "data" in one:
            found.append(np.array(one["data"], dtype).reshape(one["shape"]))
        else:
            size = one["parameters"]["binary_data_size"]
            found.append(np.frombuffer(binary[:size], dtype).reshape(one["shape"]))
            binary = binary[size:]
    assert not binary
    return found


def infer(box, model, arrays, binary_in=True, binary_out=True):
    body, headers = question(arrays, binary_in, parameters={"binary_data_output": binary_out})
    return outputs(box.post(f"/v2/models/{model}/infer", body, headers))
