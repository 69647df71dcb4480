"""Right kernels pass the whole verification, faulty ones are named; one faulty kernel for each thing it looks at.

The plugins of tests/adversarial are more of these.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from sparsebench.oracle import Oracle, make_oracle
from sparsebench.problem import Problem
from sparsebench.state import GlobalState
from sparsebench.testing.honest import HonestKernel
from sparsebench.verify import Finding, as_fed, poisoned_memory, recheck, verify_kernel, verify_once

LINEAR = Problem(op="linear", out_features=20, in_features=33, batch=6, sparsity=0.7, bias=True)
CONV = Problem(
    op="conv2d",
    out_features=6,
    in_features=4,
    kernel_size=(3, 3),
    padding=(1, 1),
    batch=2,
    height=5,
    width=6,
    sparsity=0.7,
)


def verify(kernel: type[HonestKernel], problem: Problem = LINEAR, precision: str = "float32") -> Finding:
    oracle = make_oracle(problem)
    return verify_kernel(kernel(problem, oracle.weight), oracle, precision)


@pytest.mark.parametrize("problem", [LINEAR, CONV], ids=lambda p: p.op)
def test_a_right_kernel_passes_and_is_left_as_it_was(problem: Problem) -> None:
    oracle = make_oracle(problem)
    kernel = HonestKernel(problem, oracle.weight)
    x, grad_output = oracle.x.clone(), oracle.grad_output.clone()
    finding = verify_kernel(kernel, oracle)
    assert finding.ok
    assert 0 < finding.max_rel_err < finding.tolerance
    assert torch.equal(kernel.dense, oracle.weight.to_dense())
    assert recheck(kernel, oracle).ok
    assert torch.equal(oracle.x, x)
    assert torch.equal(oracle.grad_output, grad_output)
    assert verify_once(kernel, oracle).ok


class Saving(HonestKernel):
    """Packs in forward, as real kernels do; what it saves is its own."""

    def forward_saving(self, x: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Any]:
        return self.forward(x, bias), x.clone()

    def backward(self, x: Tensor, grad_output: Tensor, needs: Any = (True, True), saved: Any = None) -> Any:
        return super().backward(x if saved is None else saved, grad_output, needs)


class SavingInTheKernel(Saving):
    """State in the kernel: a second forward before the backward overwrites it."""

    last: Tensor

    def forward_saving(self, x: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Any]:
        self.last = x.clone()
        return self.forward(x, bias), True

    def backward(self, x: Tensor, grad_output: Tensor, needs: Any = (True, True), saved: Any = None) -> Any:
        return super().backward(x, grad_output, needs, self.last if saved else None)


class SavingJunk(Saving):
    def forward_saving(self, x: Tensor, bias: Tensor | None = None) -> Any:
        return self.forward(x, bias)


class DenseGradient(HonestKernel):
    dense_grad = True

    def backward(self, x: Tensor, grad_output: Tensor, needs: Any = (True, True), saved: Any = None) -> Any:
        return self._gradients(x, grad_output, needs)


class AnythingWhereNotAsked(HonestKernel):
    def backward(self, x: Tensor, grad_output: Tensor, needs: Any = (True, True), saved: Any = None) -> Any:
        both = super().backward(x, grad_output)
        return [one if wanted else "not asked" for one, wanted in zip(both, needs, strict=True)]


@pytest.mark.parametrize("kernel", [Saving, DenseGradient, AnythingWhereNotAsked])
@pytest.mark.parametrize("problem", [LINEAR, CONV], ids=lambda p: p.op)
def test_what_a_kernel_may_do(kernel: type[HonestKernel], problem: Problem) -> None:
    assert verify(kernel, problem).reason is None


class DenseGradientUnsaid(DenseGradient):
    dense_grad = False


class WrongAlone(HonestKernel):
    def backward(self, x: Tensor, grad_output: Tensor, needs: Any = (True, True), saved: Any = None) -> Any:
        grad_input, grad_values = super().backward(x, grad_output, needs)
        return grad_input, grad_values if needs[0] or grad_values is None else grad_values * 2


class KeepsOneGradient(HonestKernel):
    kept: Tensor | None = None

    def backward(self, x: Tensor, grad_output: Tensor, needs: Any = (True, True), saved: Any = None) -> Any:
        grad_input, grad_values = super().backward(x, grad_output, needs)
        if grad_values is not None:
            self.kept = grad_values if self.kept is None else self.kept.copy_(grad_values)
        return grad_input, self.kept


class PermutesNewValues(HonestKernel):
    def set_values(self, values: Tensor) -> None:
        super().set_values(values.roll(1))


class LosesOldValues(HonestKernel):
    """Takes new values once, and never again."""

    changed = False

    def set_values(self, values: Tensor) -> None:
        if not self.changed:
            super().set_values(values)
        self.changed = True


class MutatesBias(HonestKernel):
    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        output = super().forward(x, bias)
        if bias is not None:
            bias.add_(1)
        return output


class FlipsASignOfZero(HonestKernel):
    """x is 'equal' afterwards: only its bits tell."""

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        output = super().forward(x, bias)
        x[x == 0] = -0.0
        return output


class LooksAtTheDeterministicFlag(HonestKernel):
    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        torch.set_deterministic_debug_mode("default")
        return super().forward(x, bias)


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (SavingInTheKernel, "grad_values is off"),
        (SavingJunk, "forward_saving returned Tensor instead of output and saved"),
        (DenseGradientUnsaid, "grad_values is of shape"),
        (WrongAlone, "grad_values is off"),
        (KeepsOneGradient, "a later call changed the result of an earlier one"),
        (PermutesNewValues, "forward after set_values is off"),
        (LosesOldValues, "forward after set_values is off"),
        (MutatesBias, "forward changed its input bias"),
        (LooksAtTheDeterministicFlag, "it changed torch's deterministic mode from 1 to 0"),
    ],
)
def test_what_a_kernel_must_not_do(kernel: type[HonestKernel], reason: str) -> None:
    finding = verify(kernel)
    assert not finding.ok
    assert finding.reason is not None
    assert reason in finding.reason


def test_a_changed_sign_of_zero_is_a_changed_input() -> None:
    oracle: Oracle = make_oracle(LINEAR)
    oracle.x[:, 0] = 0.0
    finding = verify_kernel(FlipsASignOfZero(LINEAR, oracle.weight), oracle)
    assert not finding.ok


class TrustsVersions(HonestKernel):
    """Computes again only what lies elsewhere or has moved its version: free of charge when it is timed."""

    trusts = True

    def __init__(self, problem: Problem, weight: Any) -> None:
        super().__init__(problem, weight)
        self.known: dict[Any, Any] = {}

    def remembered(self, call: Any, *inputs: Any) -> Any:
        key = tuple((one.data_ptr(), one._version) if isinstance(one, Tensor) else one for one in inputs)
        if not self.trusts or key not in self.known:
            self.known[key] = call(*inputs)
        return self.known[key]


class TrustsVersionsForward(TrustsVersions):
    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.remembered(super().forward, x, bias).clone()


class TrustsVersionsBackward(TrustsVersions):
    def backward(self, x: Tensor, grad_output: Tensor, needs: Any = (True, True), saved: Any = None) -> Any:
        grads = self.remembered(super().backward, x, grad_output, needs)
        return tuple(None if one is None else one.clone() for one in grads)


class TrustsVersionsOfValues(TrustsVersions):
    def set_values(self, values: Tensor) -> None:
        self.remembered(super().set_values, values)


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (TrustsVersionsForward, "forward on other x in the same memory is off"),
        (TrustsVersionsBackward, "grad_input is off"),
        (TrustsVersionsOfValues, "forward after set_values is off"),
    ],
)
def test_a_version_that_stays_is_no_excuse(kernel: type[TrustsVersions], reason: str) -> None:
    assert reason in (verify(kernel).reason or "")


@pytest.mark.parametrize("kernel", [TrustsVersionsForward, TrustsVersionsBackward])
def test_recheck_moves_no_version_either(kernel: type[TrustsVersions]) -> None:
    oracle = make_oracle(LINEAR)
    made = kernel(LINEAR, oracle.weight)
    made.trusts = False
    assert verify_kernel(made, oracle).ok
    made.trusts = True
    assert oracle.bias is not None
    x, grad_output, bias = oracle.x.clone(), oracle.grad_output.clone(), oracle.bias.clone()
    for _ in range(3):  # as it is timed
        made.forward(x, bias)
        made.backward(x, grad_output)
    versions = x._version, grad_output._version, bias._version
    assert "off by" in (recheck(made, oracle, x=x, grad_output=grad_output, bias=bias).reason or "")
    assert recheck(HonestKernel(LINEAR, oracle.weight), oracle, x=x, grad_output=grad_output, bias=bias).ok
    assert (x._version, grad_output._version, bias._version) == versions
    assert all(map(torch.equal, (x, grad_output, bias), (oracle.x, oracle.grad_output, oracle.bias)))


class Bfloat16(HonestKernel):
    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return super().forward(x.bfloat16().float(), bias)


def test_the_precision_class_decides() -> None:
    assert verify(Bfloat16, precision="bfloat16").ok
    assert not verify(Bfloat16, precision="float32").ok


def test_an_exception_is_the_callers_and_the_process_is_as_before() -> None:
    class Raises(HonestKernel):
        def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
            raise ArithmeticError("no")

    state = GlobalState.capture()
    with pytest.raises(ArithmeticError):
        verify(Raises)
    assert state.changes() is None


def test_memory_is_poisoned_inside_and_not_outside() -> None:
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    with poisoned_memory():
        assert bool(torch.empty(1000).isnan().all())
        torch.zeros(4).index_add_(0, torch.tensor([1, 1]), torch.ones(2))
    assert torch.get_deterministic_debug_mode() == 0
    assert torch.utils.deterministic.fill_uninitialized_memory == fill  # type: ignore[attr-defined]


def test_kernels_are_fed_as_they_ask() -> None:
    oracle = make_oracle(CONV)
    kernel = HonestKernel(CONV, oracle.weight)
    assert as_fed(kernel, oracle.x) is oracle.x
    seen: list[bool] = []

    class ChannelsLast(HonestKernel):
        memory_format = "channels-last"

        def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
            seen.append(x.is_contiguous(memory_format=torch.channels_last))
            return super().forward(x, bias)

    assert verify_kernel(ChannelsLast(CONV, oracle.weight), oracle).ok
    assert seen
    assert all(seen)
