"""The scratch network and how it is trained: eight plain convolutions, one heat-map cell per 8x8 input pixels.

Plain convolutions because they train twice as fast on a CPU as depthwise ones and stay one XNNPACK delegate when
quantised. Strided layers have even kernels, so that PyTorch's symmetric padding is exactly TFLite's SAME and no PAD
operator appears. The last layers are dilated: a scratch is told from the rim of the glass or the edge of an oil drop
by what is beside it, and 280 pixels of view cost nothing more that way."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scratch_data import INPUT_SCALE, CropSet
from torch import Tensor, nn

LAYERS = (  # channels, kernel, stride, dilation
    (12, 6, 2, 1),
    (16, 4, 2, 1),
    (24, 3, 1, 1),
    (32, 4, 2, 1),
    (32, 3, 1, 1),
    (32, 3, 1, 2),
    (40, 3, 1, 4),
    (40, 3, 1, 8),
)
HEAT_SOFTNESS = 2.5  # logits are divided by this on export, or nearly every heat would read 0.00 or 1.00
POSITIVE_WEIGHT = 6.0
IMAGE_LOSS_FROM = 0.6  # share of the training after which the image-level term joins; earlier it stalls 1 run in 3
IMAGE_LOSS_WEIGHT = 0.3


class ScratchNet(nn.Module):
    """(n, 3, h, w) pixels times INPUT_SCALE in, (n, 1, h / 8, w / 8) logits out."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = 3
        for out, kernel, stride, dilation in LAYERS:
            pad = dilation * (kernel - 1) // 2 if stride == 1 else (kernel - stride) // 2
            blocks += [
                nn.Conv2d(channels, out, kernel, stride, pad, dilation, bias=False),
                nn.BatchNorm2d(out, momentum=0.1),
                nn.ReLU6(),
            ]
            channels = out
        self.body = nn.Sequential(*blocks)
        self.head = nn.Conv2d(channels, 1, 1)
        _start_as_detail_detector(self.body[0])
        nn.init.constant_(self.head.bias, -3.0)  # type: ignore[arg-type]

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(pixels))
        return logits


def parameter_count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def train(crops: CropSet, seed: int, epochs: int, batch: int = 32, say: Callable[[str], None] = print) -> ScratchNet:
    """Train one network; the same seed, crops and thread count give the same network on the same machine."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = ScratchNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = len(crops.pictures) // batch
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=epochs * steps, pct_start=0.15)
    for epoch in range(epochs):
        started, total = time.monotonic(), 0.0
        order = rng.permutation(len(crops.pictures))
        image_weight = IMAGE_LOSS_WEIGHT if epoch >= IMAGE_LOSS_FROM * epochs else 0.0
        net.train()
        for step in range(steps):
            rows = order[step * batch : (step + 1) * batch]
            pixels, cells = _batch(crops, rows, rng)
            loss = _loss(net(pixels), cells, image_weight)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 2.0)
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        say(f"seed {seed} epoch {epoch + 1}/{epochs} loss {total / steps:.4f} {time.monotonic() - started:.0f} s")
    return net.eval()


def exportable(net: ScratchNet) -> nn.Module:
    """The same network with batch norms folded into the convolutions, and softer logits."""
    layers: list[nn.Module] = []
    modules = list(net.body)
    for conv, norm, relu in zip(modules[0::3], modules[1::3], modules[2::3], strict=True):
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        layers += [nn.utils.fusion.fuse_conv_bn_eval(conv.eval(), norm.eval()), relu]
    head = nn.Conv2d(net.head.in_channels, 1, 1)
    with torch.no_grad():
        head.weight.copy_(net.head.weight / HEAT_SOFTNESS)
        head.bias.copy_(net.head.bias / HEAT_SOFTNESS)  # type: ignore[union-attr, operator]
    model = nn.Sequential(*layers, head).eval()
    for weight in model.parameters():  # laid out plainly: see export_float
        weight.data = weight.data.contiguous()
    return model


def _start_as_detail_detector(conv: nn.Module) -> None:
    """Zero-mean, colour-blind, unit-norm first kernels: without them 3 of 8 runs of an earlier recipe never left
    chance level."""
    assert isinstance(conv, nn.Conv2d)
    with torch.no_grad():
        w = conv.weight
        w -= w.mean(dim=(2, 3), keepdim=True)
        w.copy_(w.mean(dim=1, keepdim=True).expand_as(w))
        w /= w.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()


def _batch(crops: CropSet, rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    pixels = torch.from_numpy(crops.pictures[rows]).permute(0, 3, 1, 2).float()  # NHWC memory: channels_last as it is
    cells = torch.from_numpy(crops.cells[rows])
    pixels *= torch.from_numpy(rng.uniform(0.8, 1.25, (len(rows), 1, 1, 1)).astype(np.float32) * INPUT_SCALE)
    pixels.clamp_(max=255.0 * INPUT_SCALE)
    flips = [axis for axis in (2, 3) if rng.random() < 0.5]
    pixels, cells = pixels.flip(flips), cells.flip([axis - 1 for axis in flips])
    if rng.random() < 0.5:
        pixels, cells = pixels.transpose(2, 3), cells.transpose(1, 2)
    return pixels.contiguous(memory_format=torch.channels_last), cells


def _loss(logits: Tensor, cells: Tensor, image_weight: float) -> Tensor:
    """Weighted cross-entropy and Dice over cells; late in training also: the hottest cells of clean crops must be cold.

    Drawing hard crops more often was tried: held-back AUROC stayed the same, and short scratches became fainter.
    """
    z, counts, truth = logits[:, 0], (cells != 2).float(), (cells == 1).float()
    weight = torch.tensor(POSITIVE_WEIGHT)
    entropy = nn.functional.binary_cross_entropy_with_logits(z, truth, counts, pos_weight=weight, reduction="sum")
    p = torch.sigmoid(z) * counts
    dice = 1.0 - (2.0 * (p * truth).sum() + 1.0) / (p.sum() + truth.sum() + 1.0)
    loss = 4.0 * entropy / counts.sum() + dice
    if image_weight > 0.0:
        loss = loss + image_weight * _image_loss(z, counts, cells)
    return loss


def _image_loss(z: Tensor, counts: Tensor, cells: Tensor) -> Tensor:
    hottest = torch.where(counts > 0, z, torch.full_like(z, -20.0)).flatten(1).topk(3, dim=1).values.mean(dim=1)
    has_scratch = ((cells == 1).flatten(1).sum(dim=1) >= 2).float()
    is_clean = (cells == 0).flatten(1).all(dim=1).float()
    votes = torch.maximum(has_scratch, is_clean)  # a sliver of a scratch at the edge has no vote
    entropy = nn.functional.binary_cross_entropy_with_logits(hottest, has_scratch, reduction="none")
    return (entropy * votes).mean()
