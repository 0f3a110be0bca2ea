"""kserve's InferenceRESTClient against a server that runs. Arguments: URL MODEL."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import numpy as np
from course import Course
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

KINDS = {"FP32": np.float32, "INT8": np.int8, "UINT8": np.uint8}


async def main() -> int:
    url, model = sys.argv[1:3]
    course, client = Course(), InferenceRESTClient(RESTConfig(protocol="v2"))
    ready = [await told(client.is_server_live(url)), await told(client.is_server_ready(url))]
    ready.append(await told(client.is_model_ready(url, model)))
    for name, said in zip(("is_server_live", "is_server_ready", "is_model_ready"), ready, strict=True):
        course.step(name, lambda said=said: raised(said), bool)
    first = None
    for binary in (False, True):
        said = await told(client.infer(url, InferRequest(model_name=model, infer_inputs=inputs(url, model, binary)),
                                       model_name=model))  # fmt: skip
        name = f"infer, {'binary' if binary else 'JSON'}"
        course.step(name, lambda said=said: raised(said).outputs[0].as_numpy().tolist(),
                    lambda found, first=first: first is None or found == first)  # fmt: skip
        first = first or said.outputs[0].as_numpy().tolist()
    unknown = await told(client.is_model_ready(url, "nope"))
    course.step("is_model_ready, unknown", lambda: unknown, lambda said: said is False or "404" in str(said))
    await client.close()
    return course.tell()


async def told(call: Any) -> Any:
    try:
        return await call
    except Exception as err:  # a result, for the course
        return err


def raised(said: Any) -> Any:
    if isinstance(said, Exception):
        raise said
    return said


def inputs(url: str, model: str, binary: bool) -> list[Any]:
    import json
    import urllib.request

    with urllib.request.urlopen(f"{url}/v2/models/{model}", timeout=60) as answer:
        about = json.load(answer)["inputs"]
    made = []
    for one in about:
        shape = [1 if size == -1 else size for size in one["shape"]]
        tensor = InferInput(one["name"], shape, one["datatype"])
        noise = np.random.default_rng(0).integers(0, 100, shape).astype(KINDS[one["datatype"]])
        tensor.set_data_from_numpy(noise, binary_data=binary)
        made.append(tensor)
    return made


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
