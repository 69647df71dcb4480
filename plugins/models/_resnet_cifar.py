"""The ResNets that He et al. made for CIFAR-10 ("Deep Residual Learning", CVPR 2016, section 4.2).

A 3x3 convolution, three stages of n blocks with 16, 32 and 64 channels, global average pooling, one linear layer:
6n + 2 layers. Where a stage halves the image, shortcuts are either the paper's option A, without parameters, or a 1x1
convolution with batch norm, its option B. Parameters have torchvision's names.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PaddedShortcut(nn.Module):
    """Option A: every second row and column, and zero channels, half of the new ones before the old and half after.

    The paper does not say where the zeros go; half on each side is what the published weights were trained with.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        """[N, out_channels, ceil(H/2), ceil(W/2)]."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class ConvShortcut(nn.Sequential):
    """Option B: a 1x1 convolution of stride 2, and batch norm."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 1, stride=2, bias=False),
            nn.BatchNorm2d(out_channels),
        )


Shortcut = type[PaddedShortcut] | type[ConvShortcut]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the first one halves the image where the channels double."""

    def __init__(self, in_channels: int, out_channels: int, shortcut: Shortcut) -> None:
        super().__init__()
        changes = in_channels != out_channels
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=2 if changes else 1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = shortcut(in_channels, out_channels) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, out_channels, H, W], of half the height and width where the channels double."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + shortcut)


class CifarResNet(nn.Module):
    """Logits [N, num_classes] of images [N, in_channels, H, W]; made for 32x32, takes any size."""

    def __init__(self, blocks: int, shortcut: Shortcut, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(blocks, 16, 16, shortcut)
        self.layer2 = _stage(blocks, 16, 32, shortcut)
        self.layer3 = _stage(blocks, 32, 64, shortcut)
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def resnet20(*, num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """20 layers with shortcuts of option A: 269,722 parameters."""
    return CifarResNet(3, PaddedShortcut, num_classes=num_classes, in_channels=in_channels)


def resnet56(*, num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """56 layers with shortcuts of option A: 853,018 parameters."""
    return CifarResNet(9, PaddedShortcut, num_classes=num_classes, in_channels=in_channels)


def resnet20_conv(*, num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """20 layers with shortcuts of option B: 272,474 parameters."""
    return CifarResNet(3, ConvShortcut, num_classes=num_classes, in_channels=in_channels)


def _stage(blocks: int, in_channels: int, out_channels: int, shortcut: Shortcut) -> nn.Sequential:
    widths = [in_channels] + [out_channels] * (blocks - 1)
    return nn.Sequential(*(BasicBlock(width, out_channels, shortcut) for width in widths))
