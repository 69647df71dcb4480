"""The LeNet-5 of Caffe (examples/mnist/lenet.prototxt), which pruning papers mean by the name: 431,080 parameters.

It is wider than the one of 1998 (20 and 50 maps, one hidden layer of 500) and has no non-linearity but max pooling
after its convolutions. The layers have Caffe's names, so that published weights load.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class CaffeLeNet5(nn.Module):
    """Logits [N, num_classes] of images [N, in_channels, 28, 28]."""

    def __init__(self, *, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.ip1 = nn.Linear(50 * 4 * 4, 500)
        self.ip2 = nn.Linear(500, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        return self.ip2(F.relu(self.ip1(x.flatten(1))))
