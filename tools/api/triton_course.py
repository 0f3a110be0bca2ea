"""Every HTTP call of tritonclient's public client, against a server that runs. Arguments: HOST:PORT MODEL ODD_MODEL.

Prints one JSON list of [call, "passed" or what went wrong]. Run by tools/api_peers with a Python that has tritonclient.
"""

from __future__ import annotations

import sys
import urllib.request
from functools import partial
from typing import Any

import numpy as np
import tritonclient.http as triton
from course import Course
from tritonclient.utils import triton_to_np_dtype

course = Course()
step, refused = course.step, course.refused


def main() -> int:
    url, model, odd = sys.argv[1:4]
    client = triton.InferenceServerClient(url, concurrency=4)
    step("is_server_live", client.is_server_live, bool)
    step("is_server_ready", client.is_server_ready, bool)
    step("is_model_ready", lambda: client.is_model_ready(model), bool)
    step("is_model_ready, a version", lambda: client.is_model_ready(model, "1"), bool)
    step("is_model_ready, unknown", lambda: client.is_model_ready("nope"), lambda said: said is False)
    step("get_server_metadata", client.get_server_metadata, lambda said: "binary_tensor_data" in said["extensions"])
    step("get_model_metadata", lambda: client.get_model_metadata(model, "1"), lambda said: said["name"] == model)
    refused("get_model_metadata, unknown", lambda: client.get_model_metadata("nope"), "no model")
    step("get_model_config", lambda: client.get_model_config(model), lambda said: said["input"][0]["dims"])
    step(
        "get_model_repository_index", client.get_model_repository_index, lambda said: model in [m["name"] for m in said]
    )
    step("load_model", lambda: client.load_model(model))
    refused("load_model, with a config", lambda: client.load_model(model, config="{}"), "bundle")
    inferences(client, model)
    batches(client, model)
    refused("infer, a model that cannot be loaded", lambda: client.infer(odd, inputs(client, model, 1)), odd)
    step("get_inference_statistics", lambda: client.get_inference_statistics(model),
         lambda said: said["model_stats"][0]["inference_stats"]["success"]["count"] > 0)  # fmt: skip
    step("get_inference_statistics, all", client.get_inference_statistics, lambda said: len(said["model_stats"]) > 0)
    step("unload_model", lambda: client.unload_model(model))
    step("infer after unload", lambda: client.infer(model, inputs(client, model, 1)))
    step("get_trace_settings", client.get_trace_settings, lambda said: said["trace_level"] == ["OFF"])
    step("get_trace_settings, a model", lambda: client.get_trace_settings(model))
    refused("update_trace_settings", lambda: client.update_trace_settings(settings={"trace_rate": "1"}), "traces")
    step("get_log_settings", client.get_log_settings)
    refused("update_log_settings", lambda: client.update_log_settings({"log_verbose_level": 1}), "service.log_level")
    step("get_system_shared_memory_status", client.get_system_shared_memory_status, lambda said: said == [])
    refused("register_system_shared_memory", lambda: client.register_system_shared_memory("a", "/a", 1), "memory")
    step("unregister_system_shared_memory", client.unregister_system_shared_memory)
    step("get_cuda_shared_memory_status", client.get_cuda_shared_memory_status, lambda said: said == [])
    refused("register_cuda_shared_memory", lambda: client.register_cuda_shared_memory("a", b"a", 0, 1), "memory")
    step("unregister_cuda_shared_memory", client.unregister_cuda_shared_memory)
    client.close()
    return course.tell()


def arrays(client: Any, model: str, count: int) -> list[tuple[str, str, Any]]:
    """Name, datatype and noise for each input; the same noise each time."""
    found = []
    for one in client.get_model_metadata(model)["inputs"]:
        shape = [count if size == -1 else size for size in one["shape"]]
        noise = np.random.default_rng(0).integers(0, 100, shape).astype(triton_to_np_dtype(one["datatype"]))
        found.append((one["name"], one["datatype"], noise))
    return found


def inputs(client: Any, model: str, count: int, binary: bool = True) -> list[Any]:
    made = []
    for name, datatype, array in arrays(client, model, count):
        one = triton.InferInput(name, list(array.shape), datatype)
        one.set_data_from_numpy(array, binary_data=binary)
        made.append(one)
    return made


def inferences(client: Any, model: str) -> None:
    """All ways to send and to ask give the same bits."""
    outputs = [one["name"] for one in client.get_model_metadata(model)["outputs"]]
    first = client.infer(model, inputs(client, model, 1)).as_numpy(outputs[0])

    def same(said: Any) -> bool:
        found = said.as_numpy(outputs[0])
        return found.dtype == first.dtype and bool((found == first).all())

    for goes_binary in (True, False):
        for comes in (True, False):
            wanted = [triton.InferRequestedOutput(name, binary_data=comes) for name in outputs]
            name = f"infer, {'binary' if goes_binary else 'JSON'} in, {'binary' if comes else 'JSON'} out"
            step(name, partial(client.infer, model, inputs(client, model, 1, goes_binary), "1", wanted), same)
    for goes in ("gzip", "deflate"):
        packed = {"request_compression_algorithm": goes, "response_compression_algorithm": goes}
        step(f"infer, {goes} both ways", partial(client.infer, model, inputs(client, model, 1), **packed), same)
    step("async_infer", lambda: client.async_infer(model, inputs(client, model, 1)).get_result(), same)
    step("infer keeps the id", lambda: client.infer(model, inputs(client, model, 1), request_id="abc"),
         lambda said: said.get_response()["id"] == "abc")  # fmt: skip
    classes = [triton.InferRequestedOutput(outputs[0], class_count=3)]
    refused("infer, classes", lambda: client.infer(model, inputs(client, model, 1), outputs=classes), "classification")
    body, length = client.generate_request_body(inputs(client, model, 1))
    step("generate_request_body, parse_response_body", lambda: posted(client, model, body, length), same)
    wrong = inputs(client, model, 1)
    wrong[0].set_shape([1, 2, 3])
    refused("infer, a wrong shape", lambda: client.infer(model, wrong), "binary_data_size")


def posted(client: Any, model: str, body: bytes, length: int) -> Any:
    request = urllib.request.Request(
        f"http://{sys.argv[1]}/v2/models/{model}/infer", body, {"Inference-Header-Content-Length": str(length)}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        said = answer.headers.get("Inference-Header-Content-Length")
        return client.parse_response_body(answer.read(), header_length=int(said) if said else None)


def batches(client: Any, model: str) -> None:
    outputs = [one["name"] for one in client.get_model_metadata(model)["outputs"]]

    def each_as_alone(said: Any) -> bool:
        found = said.as_numpy(outputs[0])
        alone = []
        for at in range(3):
            made = []
            for name, datatype, array in arrays(client, model, 3):
                one = triton.InferInput(name, [1, *array.shape[1:]], datatype)
                one.set_data_from_numpy(array[at : at + 1])
                made.append(one)
            alone.append(client.infer(model, made).as_numpy(outputs[0]))
        return bool((found == np.concatenate(alone)).all())

    step("infer, a batch of 3", lambda: client.infer(model, inputs(client, model, 3)), each_as_alone)


if __name__ == "__main__":
    raise SystemExit(main())
