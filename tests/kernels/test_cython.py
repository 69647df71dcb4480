"""The compiled loops of kernels/cython, called as the backend calls them: addresses in, numbers at addresses out."""

import random

import pytest
import torch
from torch import Tensor

from sparsebench.kernels import _cython

WIDTHS = [16, 32, 48, 64, 80, 96, 112, 128, 208]  # every way to divide lanes into tiles
DTYPES = [torch.float32, torch.float64]


class Product:
    """A random pattern of `rows` over planes of `lanes` lanes that lie `stride` apart."""

    def __init__(self, rows: int, planes: int, lanes: int, dtype: torch.dtype, density: float = 0.3) -> None:
        torch.manual_seed(rows * 1000 + lanes)
        self.rows, self.lanes, self.stride = rows, lanes, lanes + 16
        self.mask = torch.rand(rows, planes) < density
        self.dense = torch.randn(rows, planes, dtype=dtype) * self.mask
        self.values = self.dense[self.mask]
        self.indptr = torch.zeros(rows + 1, dtype=torch.int32)
        self.indptr[1:] = self.mask.sum(1).cumsum(0)
        self.offsets = (self.mask.nonzero()[:, 1] * self.stride).to(torch.int32)
        self.x = torch.randn(planes, self.stride, dtype=dtype)
        self.grad_output = torch.randn(rows, self.stride, dtype=dtype)
        self.bias = torch.randn(rows, dtype=dtype)

    def multiply(self, threads: int = 1, bias: bool = True) -> Tensor:
        out = torch.full((self.rows, self.stride), float("nan"), dtype=self.x.dtype)
        _cython.multiply(
            out.data_ptr(), self.stride, self.x.data_ptr(), self.values.data_ptr(), self.offsets.data_ptr(),
            self.indptr.data_ptr(), self.bias.data_ptr() if bias else 0, self.rows, self.lanes,
            itemsize=self.x.element_size(), threads=threads,
        )  # fmt: skip
        return out

    def sample(self, threads: int = 1) -> Tensor:
        grad = torch.zeros_like(self.values)
        _cython.sample(
            grad.data_ptr(), self.grad_output.data_ptr(), self.stride, self.x.data_ptr(), self.offsets.data_ptr(),
            self.indptr.data_ptr(), self.rows, self.lanes, itemsize=self.x.element_size(), threads=threads,
        )  # fmt: skip
        return grad


def close(got: Tensor, expected: Tensor) -> bool:
    eps = 1e-5 if got.dtype == torch.float32 else 1e-13
    return torch.allclose(got.double(), expected, rtol=eps, atol=eps * 10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lanes", WIDTHS)
def test_multiply_is_the_dense_product_and_writes_its_lanes_only(lanes: int, dtype: torch.dtype) -> None:
    product = Product(13, 9, lanes, dtype)
    out = product.multiply()
    expected = product.dense.double() @ product.x.double() + product.bias.double()[:, None]
    assert close(out[:, :lanes], expected[:, :lanes])
    assert out[:, lanes:].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lanes", WIDTHS)
def test_sample_is_the_dense_product_on_the_pattern(lanes: int, dtype: torch.dtype) -> None:
    product = Product(13, 9, lanes, dtype)
    expected = product.grad_output[:, :lanes].double() @ product.x[:, :lanes].double().T
    assert close(product.sample(), expected[product.mask])


def test_sample_adds_to_what_is_there() -> None:
    product = Product(5, 4, 16, torch.float32)
    grad = torch.ones_like(product.values)
    _cython.sample(
        grad.data_ptr(), product.grad_output.data_ptr(), product.stride, product.x.data_ptr(),
        product.offsets.data_ptr(), product.indptr.data_ptr(), 5, 16, itemsize=4, threads=1,
    )  # fmt: skip
    assert torch.equal(grad, product.sample() + 1)


def test_the_oracle_sees_one_wrong_value() -> None:
    product = Product(13, 9, 64, torch.float32)
    expected = product.dense.double() @ product.x.double()
    assert close(product.multiply(bias=False)[:, :64], expected[:, :64])
    product.values[3] *= -1
    assert not close(product.multiply(bias=False)[:, :64], expected[:, :64])


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("lanes", [16, 208])
@pytest.mark.parametrize("rows", [1, 2, 40])
def test_any_number_of_threads_gives_the_same_bits(rows: int, lanes: int, threads: int) -> None:
    product = Product(rows, 30, lanes, torch.float32)
    assert torch.equal(product.multiply(1)[:, :lanes], product.multiply(threads)[:, :lanes])
    assert torch.equal(product.sample(1), product.sample(threads))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_rows_split_by_non_zeros_miss_none_however_skewed(threads: int) -> None:
    product = Product(24, 16, 16, torch.float32, density=0.0)
    for full in ([0], [23], [7], [7, 8], [0, 23]):
        product.mask[:] = False
        product.mask[full] = True
        product.values = torch.ones(16 * len(full))
        product.indptr[1:] = product.mask.sum(1).cumsum(0)
        product.offsets = (product.mask.nonzero()[:, 1] * product.stride).to(torch.int32)
        out = product.multiply(threads, bias=False)[:, :16]
        assert not out.isnan().any()
        assert close(out, product.mask.double() @ product.x[:, :16].double())


def test_no_non_zeros_leave_the_bias() -> None:
    product = Product(6, 4, 32, torch.float32, density=0.0)
    assert torch.equal(product.multiply(2)[:, :32], product.bias[:, None].expand(6, 32))
    assert torch.equal(product.multiply(2, bias=False)[:, :32], torch.zeros(6, 32))
    assert product.sample(2).numel() == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_input_reaches_its_rows_and_no_others(bad: float) -> None:
    product = Product(20, 10, 16, torch.float32)
    product.x[4, 5] = bad
    assert torch.equal(~product.multiply()[:, 5].isfinite(), product.mask[:, 4])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2])
def test_copy_takes_any_strides(threads: int, dtype: torch.dtype) -> None:
    rng = random.Random(0)
    for _ in range(40):
        shape = [rng.choice([0, 1, 2, 5, 16, 17, 33]) for _ in range(4)]
        source, target = (
            torch.randn([shape[axis] + 1 for axis in order], dtype=dtype).permute(*_inverse(order))
            for order in (rng.sample(range(4), 4), rng.sample(range(4), 4))
        )
        source, target = (t[tuple(slice(0, size) for size in shape)] for t in (source, target))
        _cython.copy(
            target.data_ptr(), target.stride(), source.data_ptr(), source.stride(), shape,
            itemsize=source.element_size(), threads=threads,
        )  # fmt: skip
        assert torch.equal(target, source)


def _inverse(order: list[int]) -> list[int]:
    return [order.index(axis) for axis in range(4)]
