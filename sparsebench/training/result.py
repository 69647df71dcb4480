"""What a training came to, and what was known on its way."""

from __future__ import annotations

from typing import NamedTuple


class Mark(NamedTuple):
    """What was known at the end of an epoch, or after what was done in one shot at the end of all."""

    seconds: float  # spent in steps since the beginning, evaluation left out
    validation_accuracy: float
    sparsity: float  # of the prunable weights at that moment


class TrainResult(NamedTuple):
    """What a training came to."""

    accuracy: float  # on the test set, which is touched once, at the end
    validation_accuracy: float  # at the end; statistics of norms after one-shot pruning are chosen by it, no more
    loss: float  # mean over the last epoch's steps
    seconds: float  # in steps with all that methods and swaps take, without evaluation
    splits_ns: dict[str, int]  # data, forward, backward, optimizer, mask: summed over all steps
    steps: int
    marks: tuple[Mark, ...]  # one an epoch, and one more if the model was compressed after the last
    test_loss: float = float("nan")  # nats, of the same look at the test set

    def seconds_to(self, goal: float, sparsity: float = 0.0) -> float | None:
        """Seconds to the first mark with a validation accuracy of `goal`, and at least so sparse."""
        return next(
            (m.seconds for m in self.marks if m.validation_accuracy >= goal and m.sparsity >= sparsity - 1e-9), None
        )
