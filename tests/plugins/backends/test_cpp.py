"""The `cpp` backend through Python: options, instruction sets, threads, layouts of tensors, memory, and its errors."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsebench.builtin.backends import _cpp as backend_module
from sparsebench.builtin.backends._cpp import CppBackend, CppKernel
from sparsebench.errors import ProblemError, UnsupportedError
from sparsebench.kernels import _cpp
from sparsebench.nn import SparseConv2d, SparseLinear
from sparsebench.plugin import Problem, SparseWeight
from sparsebench.registry import load_registry
from sparsebench.testing import checks_for, run_check

LINEAR = Problem(op="linear", in_features=300, out_features=200, batch=96, sparsity=0.7)
CONV = Problem(op="conv2d", in_features=12, out_features=24, kernel_size=(3, 3), padding=(1, 1), height=14, width=11,
               batch=9, sparsity=0.7)  # fmt: skip
POINT = replace(CONV, kernel_size=(1, 1), padding=(0, 0), height=1, width=1, batch=2)
ODD = [
    replace(LINEAR, in_features=1, out_features=1, batch=1, sparsity=0.0),
    replace(LINEAR, batch=2),  # one vector after the other
    replace(LINEAR, in_features=70_000, out_features=2, batch=1, sparsity=0.9),  # columns of more than 16 bits
    replace(LINEAR, batch=257),
    POINT,
    replace(POINT, height=3, stride=(3, 3)),  # pixels that no window meets
    replace(POINT, padding=(1, 1), stride=(3, 3)),  # a window that meets no pixel
    replace(POINT, kernel_size=(2, 2), padding=(2, 2), stride=(3, 4), dilation=(2, 2), batch=9),  # planes of padding
    replace(CONV, batch=1),
    replace(CONV, batch=16, stride=(2, 3)),
    replace(CONV, batch=3, groups=3, dilation=(2, 1), padding=(0, 4)),
]
OPTIONS: list[dict[str, Any]] = [
    *({"tile": tile} for tile in range(1, 9)),
    *({"block": block} for block in (8, 64, "all")),
    {"layout": "rows"},
    {"layout": "flat"},
    {"layout": "flat", "tile": 3, "block": 8},
]
BOTH = pytest.mark.parametrize("layer", [LINEAR, CONV], ids=["linear", "conv2d"])


def data_of(problem: Problem, density: float = 0.3) -> tuple[SparseWeight, Tensor, Tensor]:
    """(weight, x, grad_output), seeded."""
    torch.manual_seed(0)
    weight, x, grad_output = map(torch.randn, (problem.weight_shape, problem.input_shape, problem.output_shape))
    return SparseWeight.from_dense(weight, torch.rand(weight.shape) < density), x, grad_output


def test_right(check: Callable[..., None], problem: Problem) -> None:
    for isa in _cpp.isas():
        check(CppBackend(isa=isa), problem)


def test_rules(rule: Callable[..., None]) -> None:
    rule(CppBackend())


@pytest.mark.parametrize("odd", ODD, ids=Problem.describe)
def test_odd_geometries(check: Callable[..., None], odd: Problem) -> None:
    for isa in _cpp.isas():
        check(CppBackend(isa=isa), odd)


@BOTH
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_plan_is_right(check: Callable[..., None], layer: Problem, options: dict[str, Any]) -> None:
    check(CppBackend(**options), layer)


@BOTH
def test_the_comparison_fails_for_one_wrong_value(check: Callable[..., None], layer: Problem) -> None:
    class Late(CppBackend):
        def bind(self, problem: Problem, weight: SparseWeight) -> CppKernel:
            values = weight.values.clone()
            values[len(values) // 2] *= -1
            return super().bind(problem, weight.with_values(values))

    with pytest.raises(AssertionError, match="forward is off"):
        check(Late(), layer)


@pytest.mark.parametrize("name", ["cpp", *(f"cpp@isa={isa}" for isa in _cpp.isas())])
def test_every_instruction_set_does_the_whole_grid(name: str) -> None:
    registry = load_registry()
    spec, backend = registry.backends["cpp"].spec, registry.create("backends", name)
    done = [run_check(backend, spec, check) for check in checks_for(spec)]
    assert len(done) == 72
    assert [result for result in done if result.status != "ok"] == []


@BOTH
def test_the_note_names_the_instruction_set_and_the_plan(layer: Problem) -> None:
    weight = data_of(layer)[0]
    for isa, (lanes, _) in _cpp.isas().items():
        note = CppBackend(isa=isa, tile=3, block=16).bind(layer, weight).note
        images = f"{3 * lanes} images" if layer is LINEAR else "images"
        assert note.startswith(f"{isa} tile 3, ") and images in note and note.endswith("blocks of 16")


def test_a_forced_instruction_set_is_used_and_one_that_cannot_run_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = data_of(LINEAR)[0]
    monkeypatch.setenv("SPARSEBENCH_ISA", "base")
    assert CppBackend().bind(LINEAR, weight).note.startswith("base ")
    widest = next(iter(_cpp.isas()))
    assert CppBackend(isa=widest).bind(LINEAR, weight).note.startswith(f"{widest} ")  # an option goes first
    monkeypatch.setenv("SPARSEBENCH_ISA", "avx9")
    assert (CppBackend().unsupported(LINEAR) or "").startswith("this CPU does not run isa=avx9 (it runs ")
    with pytest.raises(UnsupportedError, match=r"does not run isa=avx9 \(it runs .*base"):
        CppBackend().bind(LINEAR, weight)
    monkeypatch.setattr(backend_module._cpp, "isas", lambda: {"base": (4, 8)})  # an older CPU
    assert CppBackend(isa="avx2").unsupported(LINEAR) == "this CPU does not run isa=avx2 (it runs base)"


def test_few_multiplications_are_done_by_one_thread() -> None:
    kernel = CppBackend().bind(LINEAR, data_of(LINEAR)[0])
    torch.set_num_threads(2)
    assert kernel._threads(torch.empty(1, 300, 1, 1)) == 1


def test_elements_off_their_alignment_are_copied_first() -> None:
    weight, x, _ = data_of(LINEAR)
    odd = torch.frombuffer(bytearray(4 * x.numel() + 2), dtype=torch.float32, offset=2, count=x.numel())
    odd = odd.view(x.shape).copy_(x)
    kernel = CppBackend().bind(LINEAR, weight)
    assert odd.data_ptr() % 4
    assert torch.equal(kernel.forward(odd), kernel.forward(x))


def test_what_does_not_fit_is_a_typed_error() -> None:
    weight, x, grad_output = data_of(CONV)
    kernel = CppBackend().bind(CONV, weight)
    with pytest.raises(ProblemError, match=r"takes torch.float32 \[batch, 12, height, width\]"):
        kernel.forward(x.double())
    with pytest.raises(ProblemError, match=r"x is torch.float32 \(9, 2, 14, 11\)"):
        kernel.forward(x[:, :2])
    with pytest.raises(ProblemError, match="smaller than the window"):
        kernel.forward(torch.zeros(1, 12, 1, 0))
    with pytest.raises(ProblemError, match=r"grad_output is .* this x needs torch.float32 \(9, 24, 14, 11\)"):
        kernel.backward(x, grad_output[:, :, 1:])
    with pytest.raises(ProblemError, match=r"grad_output is torch\.float64"):
        kernel.backward(x, grad_output.double())
    with pytest.raises(ProblemError, match="values are"):
        kernel.set_values(torch.zeros(weight.nnz + 1))
    with pytest.raises(ProblemError, match=r"takes torch.float32 \[batch, 300\]"):
        CppBackend().bind(LINEAR, data_of(LINEAR)[0]).forward(torch.zeros(300))


def test_unsupported_names_what_it_cannot_do() -> None:
    assert CppBackend().unsupported(CONV) is None
    assert "float64" in (CppBackend().unsupported(replace(CONV, dtype="float64")) or "")
    huge = Problem(op="conv2d", in_features=64, out_features=1, height=2**13, width=2**12)
    assert "2 GiB" in (CppBackend().unsupported(huge) or "")
    kernel = CppBackend().bind(replace(huge, height=3, width=3), SparseWeight.from_dense(torch.ones(1, 64, 1, 1)))
    with pytest.raises(ProblemError, match="2 GiB"):
        kernel.forward(torch.zeros(1, 1, 1, 1).expand(1, 64, 2**13, 2**12))


@pytest.mark.parametrize(
    "way", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("module", [nn.Linear(40, 30), nn.Conv2d(4, 6, 3, padding=1)], ids=["linear", "conv2d"])
def test_layers_survive_copies_and_pickles(module: Any, way: Callable[[Any], Any]) -> None:
    x = torch.randn((7, 40) if isinstance(module, nn.Linear) else (7, 4, 6, 5))
    mask = torch.rand(module.weight.shape) < 0.3
    sparse_type = SparseLinear if isinstance(module, nn.Linear) else SparseConv2d
    layer = sparse_type.from_dense(module, "cpp", mask=mask)
    output = layer(x)
    twin = way(layer)
    layer.values.data.zero_()
    del layer
    assert torch.equal(twin(x), output)
    with torch.enable_grad():
        twin.train()(x).square().sum().backward()
    assert twin.values.grad.isfinite().all() and twin.values.grad.any()
