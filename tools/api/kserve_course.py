"""kserve's InferenceRESTClient against a server that runs. Arguments: URL MODEL."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from functools import partial
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
        course.step(name, partial(raised, said), bool)
    answers = []
    for binary in (False, True):
        question = InferRequest(model_name=model, infer_inputs=inputs(url, model, binary))
        said = await told(client.infer(url, question, model_name=model))
        answers.append(said)
        course.step(f"infer, {'binary' if binary else 'JSON'}", partial(values, said))
    course.step("JSON and binary say the same", lambda: [values(said) for said in answers],
                lambda found: found[0] == found[1])  # fmt: skip
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


def values(said: Any) -> Any:
    return raised(said).outputs[0].as_numpy().tolist()


def inputs(url: str, model: str, binary: bool) -> list[Any]:
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
