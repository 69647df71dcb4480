"""LeNet-300-100 (LeCun et al. 1998, section III.C.4), the fully connected network that pruning papers measure first.

The layers have the names of Caffe and of the papers' tables (Han et al., NIPS 2015; Guo et al., NIPS 2016), so that
published weights load. ReLU stands where 1998 had squashed units, as in all of them.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class LeNet300100(nn.Module):
    """Logits [batch, num_classes] of inputs [batch, in_channels], where `in_channels` counts the features."""

    def __init__(self, *, num_classes: int = 10, in_channels: int = 784) -> None:
        super().__init__()
        self.ip1 = nn.Linear(in_channels, 300)
        self.ip2 = nn.Linear(300, 100)
        self.ip3 = nn.Linear(100, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, num_classes]."""
        return self.ip3(F.relu(self.ip2(F.relu(self.ip1(x)))))
