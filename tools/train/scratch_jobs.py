"""The two long jobs of `tools/train/scratch`, each a plain function for a process of its own, with files in between.

One thread each: on two cores two single-threaded trainings finish sooner than one after the other with two threads,
whose OpenMP threads burn twice the processor time waiting for each other on a busy machine (665 s against 330 s of
CPU for the same network)."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import scratch_data
from scratch_data import CropSet


def draw_shard(shard: int, count: int, work: Path) -> None:
    """Draw one shard of the training crops into `work`."""
    cv2.setNumThreads(1)
    crops = scratch_data.make_crops(shard, count)
    np.save(work / f"pictures-{shard}.npy", crops.pictures)
    np.save(work / f"cells-{shard}.npy", crops.cells)


def train_seed(seed: int, epochs: int, shards: int, work: Path) -> None:
    """Train the network of one seed on all shards and write its float and int8 TFLite files into `work`."""
    import torch
    from scratch_net import exportable, train
    from scratch_tflite import export_float, export_int8

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    numbers = range(1, shards + 1)
    crops = CropSet(
        np.concatenate([np.load(work / f"pictures-{shard}.npy") for shard in numbers]),
        np.concatenate([np.load(work / f"cells-{shard}.npy") for shard in numbers]),
    )
    model = exportable(train(crops, seed, epochs, say=lambda line: print(line, flush=True)))
    float_path = work / f"float-{seed}.tflite"
    export_float(model, float_path)
    export_int8(float_path, work / f"int8-{seed}.tflite", scratch_data.representative_pictures())
