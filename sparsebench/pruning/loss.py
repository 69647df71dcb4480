"""The loss that every training, calibration and comparison uses."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats of logits [n, classes] and labels [n], or [n, places, classes] and [n, places]."""
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten())
