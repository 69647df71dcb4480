"""The compiled module of kernels/cpp: what it offers and what a layer owns; most of what it computes is fuzzed."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from sparsebench.kernels import _cpp

LANES = {"base": 4, "avx2": 8, "avx512": 16}
ALL = 2**30


class Linear:
    """A bound linear layer [rows, columns], its values drawn with `seed`; addresses go in, tensors come out."""

    def __init__(
        self, rows: int = 40, columns: int = 30, density: float = 0.3, isa: str = "base", seed: int = 0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        mask = torch.rand(rows, columns, generator=generator) < density
        self.dense = torch.randn(rows, columns, generator=generator) * mask
        self.values = self.dense[mask]
        self.indices = mask.nonzero()[:, 1].to(torch.int32)
        self.indptr = torch.zeros(rows + 1, dtype=torch.int32)
        self.indptr[1:] = mask.sum(1).cumsum(0)
        lanes, most_vectors = _cpp.isas()[isa]
        self.layer = _cpp.Layer(
            isa, (rows, columns), (1, 1), (1, 1), (0, 0), (1, 1), 1, self.indptr.data_ptr(), self.indices.data_ptr(),
            self.values.data_ptr(), (most_vectors, most_vectors * lanes, ALL, ALL), (1, 1),
        )  # fmt: skip

    def forward(self, x: Tensor, threads: int = 1) -> Tensor:
        out = torch.full((x.shape[0], self.dense.shape[0]), torch.nan)
        self.layer.forward(
            x.data_ptr(), (*x.stride(), 1, 1), (*x.shape, 1, 1), 0, out.data_ptr(), (*out.stride(), 1, 1), 0, threads
        )
        return out

    def backward(self, x: Tensor, grad_output: Tensor, threads: int = 1) -> tuple[Tensor, Tensor]:
        grad_input, grad_values = torch.full(x.shape, torch.nan), torch.full(self.values.shape, torch.nan)
        self.layer.backward(
            x.data_ptr(), (*x.stride(), 1, 1), (*x.shape, 1, 1), grad_output.data_ptr(), (*grad_output.stride(), 1, 1),
            grad_input.data_ptr(), (*grad_input.stride(), 1, 1), grad_values.data_ptr(), 0, threads,
        )  # fmt: skip
        return grad_input, grad_values


def test_the_baseline_is_always_there_and_the_widest_comes_first() -> None:
    isas = _cpp.isas()
    assert "base" in isas and isas.keys() <= LANES.keys()
    assert [lanes for lanes, _ in isas.values()] == sorted((LANES[name] for name in isas), reverse=True)
    assert all(most_vectors >= 1 for _, most_vectors in isas.values())


def test_an_instruction_set_that_is_not_there_is_an_error_and_no_crash() -> None:
    with pytest.raises(ValueError, match="this CPU does not run isa 'avx9'"):
        _cpp.Layer("avx9", (1, 1), (1, 1), (1, 1), (0, 0), (1, 1), 1, 0, 0, 0, (1, 4, 1, 1), (1, 1))


@pytest.mark.parametrize("isa", _cpp.isas())
@pytest.mark.parametrize("batch", [1, 2, 3, 70])
def test_all_passes_are_the_dense_ones(isa: str, batch: int) -> None:
    linear, x, grad_output = Linear(isa=isa), torch.randn(batch, 30), torch.randn(batch, 40)
    grad_input, grad_values = linear.backward(x, grad_output)
    torch.testing.assert_close(linear.forward(x), x @ linear.dense.t())
    torch.testing.assert_close(grad_input, grad_output @ linear.dense)
    torch.testing.assert_close(grad_values, (grad_output.t() @ x)[linear.dense != 0])


def test_the_comparison_sees_one_value_that_was_not_taken_over() -> None:
    linear, x = Linear(), torch.randn(5, 30)
    values = linear.values.clone()
    values[7] *= -1
    linear.layer.set_values(values.data_ptr())
    assert not torch.allclose(linear.forward(x), x @ linear.dense.t())
    linear.layer.set_values(linear.values.data_ptr())
    torch.testing.assert_close(linear.forward(x), x @ linear.dense.t())


def test_values_are_copied_and_the_given_ones_may_change() -> None:
    linear, x = Linear(), torch.randn(5, 30)
    before = linear.forward(x)
    linear.values.zero_()
    assert torch.equal(linear.forward(x), before)


def test_one_vector_saves_nothing_and_a_batch_saves_its_packing() -> None:
    layer = Linear().layer
    assert layer.saved_size(1, 1, 1) == 0
    assert layer.saved_size(33, 1, 1) >= 33 * 30


def test_the_transposed_pattern_is_built_by_the_first_backward_alone() -> None:
    linear, x, grad_output = Linear(200, 200), torch.randn(16, 200), torch.randn(16, 200)
    nnz = linear.values.numel()
    linear.forward(x)
    bound = linear.layer.nbytes
    assert 8 * nnz <= bound < 12 * nnz
    linear.backward(x, grad_output)
    built = linear.layer.nbytes
    assert built >= bound + 8 * nnz
    linear.backward(x, grad_output)
    assert linear.layer.nbytes == built


def test_layers_of_two_python_threads_do_not_meet() -> None:
    """The scratch belongs to a thread; the loops run without the interpreter's lock."""
    layers = [Linear(90, 80, seed=seed) for seed in range(2)]
    x, grad_output = torch.randn(65, 80), torch.randn(65, 90)
    alone = [(layer.forward(x), *layer.backward(x, grad_output)) for layer in layers]

    def many(index: int) -> bool:
        results = [(layers[index].forward(x), *layers[index].backward(x, grad_output)) for _ in range(50)]
        return all(torch.equal(*pair) for one in results for pair in zip(one, alone[index], strict=True))

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(many, range(2)))
