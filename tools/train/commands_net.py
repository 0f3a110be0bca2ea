"""The two networks behind the voice bundles, and how they are trained.

`EmbedHead` reads what a frozen speech embedding, pretrained on people, makes of a clip: two small convolutions over
time. `DsCnn` reads a log-mel picture itself, by depthwise separable convolutions, and has only ever heard synthesisers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Rows = NDArray[np.float16]
LABEL_SMOOTHING = 0.1


@dataclass(frozen=True, slots=True)
class Teaching:
    """How long and how hard."""

    epochs: int
    batch: int
    rate: float
    mask_time: int  # rows of a picture that may be blanked at once
    mask_bands: int
    jitter: float  # noise on features, in their own standard deviations
    mixup: float


class EmbedHead(nn.Module):
    """(n, 1, steps, 96) embeddings in, (n, labels) logits out."""

    def __init__(self, labels: int, mean: float, std: float, width: int = 64) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.body = nn.Sequential(
            nn.Conv2d(1, width, (3, 96), bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Conv2d(width, width, (3, 1), bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.drop = nn.Dropout(0.3)
        self.last = nn.Linear(2 * width, labels)

    def forward(self, rows: Tensor) -> Tensor:
        seen = self.body((rows - self.mean) / self.std)
        both = torch.cat([seen.mean(dim=(2, 3)), seen.amax(dim=(2, 3))], dim=1)
        logits: Tensor = self.last(self.drop(both))
        return logits


class Separable(nn.Sequential):
    def __init__(self, channels: int, out: int, stride: tuple[int, int]) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU6(),
            nn.Conv2d(channels, out, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU6(),
        )


class DsCnn(nn.Module):
    """(n, 1, frames, bands) log-mel in, (n, labels) logits out.

    Bands are merged by a learnt weight each, not by their mean: where a formant lies is what tells vowels apart."""

    def __init__(self, labels: int, mean: float, std: float, bands: int = 40) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.first = nn.Sequential(nn.Conv2d(1, 16, 5, 2, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.body = nn.Sequential(
            Separable(16, 32, (2, 2)), Separable(32, 48, (1, 1)), Separable(48, 64, (1, 2)), Separable(64, 64, (1, 1))
        )
        left = math.ceil(math.ceil(math.ceil(bands / 2) / 2) / 2)
        self.merge = nn.Sequential(
            nn.Conv2d(64, 64, (1, left), groups=64, bias=False), nn.BatchNorm2d(64), nn.ReLU6(),
            nn.Conv2d(64, 96, 1, bias=False), nn.BatchNorm2d(96), nn.ReLU6(),
            nn.Conv2d(96, 96, (5, 1), padding=(2, 0), groups=96, bias=False), nn.BatchNorm2d(96), nn.ReLU6(),
            nn.Conv2d(96, 96, 1, bias=False), nn.BatchNorm2d(96), nn.ReLU6(),
        )  # fmt: skip
        self.drop = nn.Dropout(0.2)
        self.last = nn.Linear(96, labels)

    def forward(self, rows: Tensor) -> Tensor:
        seen = self.merge(self.body(self.first((rows - self.mean) / self.std)))
        logits: Tensor = self.last(self.drop(seen.mean(dim=(2, 3))))
        return logits


def smoothed(labels: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """Truth as shares, (n, count): not quite sure of anything, so that scores stay apart from 0 and 1."""
    truth = np.full((len(labels), count), LABEL_SMOOTHING / count, np.float32)
    truth[np.arange(len(labels)), labels] += 1.0 - LABEL_SMOOTHING
    return truth


def parameter_count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def train(
    net: nn.Module,
    rows: Rows,
    truth: NDArray[np.float32],
    chances: NDArray[np.float32],
    how: Teaching,
    seed: int,
    say: Callable[[str], None] = print,
) -> nn.Module:
    """The same seed, rows and thread count give the same network on the same machine.

    rows: (n, steps, width); truth: (n, labels), what each row is, as shares; chances: how likely each row takes
    part in an epoch.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    steps = int(chances.sum() * 0.97) // how.batch
    spread = float(rows[:: max(len(rows) // 500, 1)].astype(np.float32).std())
    floor = float(rows[:: max(len(rows) // 500, 1)].astype(np.float32).mean())
    optimiser = torch.optim.AdamW(net.parameters(), lr=how.rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, how.rate, total_steps=how.epochs * steps, pct_start=0.2)
    for epoch in range(how.epochs):
        started, total = time.monotonic(), 0.0
        order = rng.permutation(np.flatnonzero(rng.random(len(rows)) < chances))
        steps_now = min(steps, len(order) // how.batch)
        net.train()
        for step in range(steps_now):
            picked = np.sort(order[step * how.batch : (step + 1) * how.batch])
            x = torch.from_numpy(rows[picked].astype(np.float32))[:, None]
            y = torch.from_numpy(truth[picked])
            x = _spoil(x, how, spread, floor, rng)
            loss = _loss(net, x, y, how.mixup, rng)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        say(f"seed {seed} epoch {epoch + 1}/{how.epochs} loss {total / steps:.4f} {time.monotonic() - started:.0f} s")
    return net.eval()


def _spoil(x: Tensor, how: Teaching, spread: float, floor: float, rng: np.random.Generator) -> Tensor:
    """Noise on the features, a blanked stretch of time and a blanked stretch of bands."""
    if how.jitter:
        x = x + torch.randn_like(x) * (how.jitter * spread)
    for axis, most in ((2, how.mask_time), (3, how.mask_bands)):
        if not most:
            continue
        for _ in range(2):
            size = int(rng.integers(0, most + 1))
            start = int(rng.integers(0, x.shape[axis] - size + 1))
            half = torch.from_numpy(rng.random(len(x)) < 0.5)
            x[half] = x[half].index_fill(axis, torch.arange(start, start + size), floor)
    return x


def _loss(net: nn.Module, x: Tensor, y: Tensor, mixup: float, rng: np.random.Generator) -> Tensor:
    """Cross-entropy against shares, of rows or of two rows mixed."""

    def entropy(logits: Tensor, truth: Tensor) -> Tensor:
        return -(truth * nn.functional.log_softmax(logits, dim=1)).sum(dim=1).mean()

    if not mixup:
        return entropy(net(x), y)
    share = float(rng.beta(mixup, mixup))
    other = torch.from_numpy(rng.permutation(len(x)))
    return entropy(net(share * x + (1.0 - share) * x[other]), share * y + (1.0 - share) * y[other])
