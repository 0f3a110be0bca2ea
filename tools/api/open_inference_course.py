"""The client of open-inference-openapi against a server that runs. Arguments: URL MODEL."""

from __future__ import annotations

import sys

from course import Course
from open_inference.openapi.client import OpenInferenceClient
from open_inference.openapi.types import InferenceRequest, RequestInput


def main() -> int:
    url, model = sys.argv[1:3]
    course, client = Course(), OpenInferenceClient(base_url=url)
    course.step("check_server_liveness", client.check_server_liveness)
    course.step("check_server_readiness", client.check_server_readiness)
    course.step("check_model_readiness", lambda: client.check_model_readiness(model))
    course.step("check_model_version_readiness", lambda: client.check_model_version_readiness(model, "1"))
    course.step("read_server_metadata", client.read_server_metadata, lambda said: said.name == "edge_runtime")
    course.step("read_model_metadata", lambda: client.read_model_metadata(model), lambda said: said.versions == ["1"])
    course.step("read_model_version_metadata", lambda: client.read_model_version_metadata(model, "1"),
                lambda said: said.platform == "tensorflow_lite")  # fmt: skip
    inputs = []
    for one in client.read_model_metadata(model).inputs:
        shape = [1 if size == -1 else size for size in one.shape]
        count = 1
        for size in shape:
            count *= size
        inputs.append(RequestInput(name=one.name, shape=shape, datatype=one.datatype, data=[1] * count))
    request = InferenceRequest(id="a", inputs=inputs)
    course.step("model_infer", lambda: client.model_infer(model, request=request), lambda said: said.outputs[0].data)
    course.step("model_version_infer", lambda: client.model_version_infer(model, "1", request=request),
                lambda said: said.model_version == "1" and said.id == "a")  # fmt: skip
    course.refused("unknown model", lambda: client.read_model_metadata("nope"), "no model")
    return course.tell()


if __name__ == "__main__":
    raise SystemExit(main())
