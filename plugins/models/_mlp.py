"""A multilayer perceptron in -> 512 -> 512 -> classes with ReLU."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Module):
    """Logits [batch, num_classes] of inputs [batch, in_channels], where `in_channels` counts the features."""

    def __init__(self, *, num_classes: int = 10, in_channels: int = 784, hidden: int = 512) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_channels, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, num_classes]."""
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))
