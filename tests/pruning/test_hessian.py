"""What a weight is multiplied with is proven by the layer's own output, and Hessians by sums that are made by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsebench.errors import UnsupportedError, UsageError
from sparsebench.plugin import columns, damped, hessian, input_norms, inverse, inverse_factor
from sparsebench.pruning.calibration import Calibration

CONVOLUTIONS: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": 1},
    {"kernel_size": 3, "padding": 1, "stride": 2},
    {"kernel_size": (3, 2), "padding": (2, 1), "stride": (1, 3)},
    {"kernel_size": (2, 3), "dilation": (3, 2), "padding": 2},
    {"kernel_size": 3, "padding": 1, "groups": 2},
    {"kernel_size": 3, "padding": 1, "groups": 4, "stride": 2, "dilation": 2},
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": (4, 2), "padding": "same", "dilation": (1, 3)},
    {"kernel_size": 2, "padding": "valid"},
]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def examples(inputs: Tensor, batch: int = 64) -> Calibration:
    return Calibration(inputs, torch.zeros(len(inputs), dtype=torch.long), count=len(inputs), batch=batch)


Columns = Callable[[nn.Module, Tensor], Tensor]


def is_a_product(made: Columns, **options: Any) -> None:
    """The convolution is the product of its columns with its weight."""
    torch.manual_seed(0)
    layer, x = nn.Conv2d(4, 8, **options), draw(3, 4, 9, 8)
    seen = made(layer, x)
    with torch.no_grad():
        output = layer(x)
        product = seen @ layer.weight.reshape(layer.groups, -1, seen.shape[-1]).mT  # [groups, samples, out/groups]
    n, _, high, wide = output.shape
    by_place = product.transpose(0, 1).reshape(n, high, wide, 8).permute(0, 3, 1, 2)
    torch.testing.assert_close(by_place + layer.bias.detach()[:, None, None], output)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_a_convolution_is_the_product_of_its_columns_with_its_weight(options: dict[str, Any]) -> None:
    is_a_product(columns, **options)


def by_place_first(layer: Any, x: Tensor) -> Tensor:
    """The fault: columns in the order (kh, kw, in)."""
    seen = columns(layer, x)
    return seen.unflatten(-1, (-1, layer.kernel_size[0] * layer.kernel_size[1])).mT.flatten(-2)


def without_dilation(layer: Any, x: Tensor) -> Tensor:
    """The fault: a window of neighbours, padded so that there are as many places."""
    return F.unfold(x, layer.kernel_size, padding=1, stride=layer.stride).mT.reshape(1, -1, 36)


@pytest.mark.parametrize(
    ("broken", "options"),
    [(by_place_first, {"kernel_size": 3}), (without_dilation, {"kernel_size": 3, "dilation": 2, "padding": 2})],
)
def test_other_columns_are_seen(broken: Columns, options: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        is_a_product(broken, **options)


@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 6), (2, 3, 4, 6), (6,)])
def test_all_leading_dimensions_of_a_linear_input_are_samples(shape: tuple[int, ...]) -> None:
    layer, x = nn.Linear(6, 4, bias=False), draw(*shape)
    seen = columns(layer, x)
    assert seen.shape == (1, x.numel() // 6, 6)
    torch.testing.assert_close((seen @ layer.weight.mT).reshape(*shape[:-1], 4), layer(x))


def test_an_image_without_a_batch_is_one_example() -> None:
    layer, x = nn.Conv2d(2, 3, 3, padding=1), draw(2, 5, 5)
    assert torch.equal(columns(layer, x), columns(layer, x[None]))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_other_padding_and_other_layers_are_typed_errors(mode: str) -> None:
    with pytest.raises(UnsupportedError, match=mode):
        columns(nn.Conv2d(2, 3, 3, padding=1, padding_mode=mode), draw(1, 2, 5, 5))
    with pytest.raises(UnsupportedError, match="Embedding"):
        columns(nn.Embedding(3, 4), draw(1, 4))


# Hessians


class Small(nn.Module):
    """A grouped convolution, a norm, and a linear layer, on [n, 2, 5, 5]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 4, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(100, 3)
        self.unused = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.norm(self.conv(x)), inplace=True).flatten(1))


Hessian = Callable[[Calibration, nn.Module, str], Tensor]


def is_the_mean_product(made: Hessian) -> None:
    """Twice the mean of x times x, in NumPy and all at once, however the examples come in batches."""
    model, x = Small(), draw(23, 2, 5, 5)
    unfolded = F.unfold(x.double(), 3, padding=1).reshape(23, 2, 9, 25).numpy()
    expected = 2 * np.einsum("ngcl,ngdl->gcd", unfolded, unfolded) / (23 * 25)
    inner = model.eval().norm(model.conv(x)).relu().flatten(1).detach().double().numpy()
    for batch in (1, 5, 23):
        np.testing.assert_allclose(made(examples(x, batch), model, "conv.weight").numpy(), expected, rtol=1e-12)
        found = made(examples(x, batch), model, "fc.weight").numpy()[0]
        np.testing.assert_allclose(found, 2 * inner.T @ inner / 23, rtol=1e-4, atol=1e-6)


def test_a_hessian_is_the_mean_product_whatever_the_batches() -> None:
    is_the_mean_product(hessian)


def mean_of_batches(calibration: Calibration, model: nn.Module, name: str) -> Tensor:
    """The fault: batches of different sizes count the same."""
    seen = [
        columns(model.get_submodule(name[:-7]), x.double())
        for x in calibration.inputs_of(model, model.get_submodule(name[:-7]))
    ]
    return torch.stack([2 * x.mT @ x / x.shape[1] for x in seen]).mean(0)


def examples_for_samples(calibration: Calibration, model: nn.Module, name: str) -> Tensor:
    """The fault of published code: what is divided by is the number of examples."""
    made = hessian(calibration, model, name)
    return made * (25 if "conv" in name else 1)


@pytest.mark.parametrize("broken", [mean_of_batches, examples_for_samples])
def test_other_means_are_seen(broken: Hessian) -> None:
    with pytest.raises(AssertionError):
        is_the_mean_product(broken)


def test_text_has_a_sample_for_every_token() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 7))
    tokens = torch.randint(7, (11, 4), generator=torch.Generator().manual_seed(0))
    calibration = Calibration(tokens, tokens.roll(-1, 1), count=11, batch=3)
    x = model[0](tokens).detach().reshape(-1, 6).double()
    torch.testing.assert_close(hessian(calibration, model, "1.weight")[0], 2 * x.T @ x / 44)
    assert calibration.record["examples"] == 11


@pytest.mark.parametrize("name", ["conv.weight", "fc.weight", "unused.weight"])
def test_norms_are_the_diagonal(name: str) -> None:
    model, calibration = Small(), examples(draw(9, 2, 5, 5), 4)
    diagonal = hessian(calibration, model, name).diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(input_norms(calibration, model, name), (diagonal / 2).sqrt())


def test_a_layer_that_nothing_reaches_has_zeros() -> None:
    assert torch.equal(hessian(examples(draw(4, 2, 5, 5)), Small(), "unused.weight"), torch.zeros(1, 3, 3).double())


def test_rare_examples_leave_no_negative_eigenvalues() -> None:
    """3 examples of 60 columns; as sums of float32 products it would be indefinite by 1e-7 of the largest."""
    model, x = nn.Sequential(nn.Linear(60, 2)), 100 * draw(3, 60)
    values = torch.linalg.eigvalsh(hessian(examples(x), model, "0.weight")[0])
    rounded = torch.linalg.eigvalsh((x.T @ x).float())
    assert float(values.min() / values.max()) > -1e-14 > float(rounded.min() / rounded.max())


# damping and inverses


def correlated(size: int, samples: int = 100, groups: int = 2) -> Tensor:
    x = draw(groups, samples, size).double() @ draw(size, size, seed=1).double()
    return 2 * x.mT @ x / samples


def test_damping_adds_a_share_of_the_mean_diagonal() -> None:
    given = correlated(8)
    made, record = damped(given, 0.1)
    expected = given + 0.1 * given.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(8)
    torch.testing.assert_close(made, expected)
    assert record == (0.1, 0.1)
    assert record.note == ""
    assert torch.equal(damped(given, 0.0)[0], given)


@pytest.mark.parametrize(("asked", "used"), [(0.0, 1e-6), (1e-17, 1e-6)])
def test_a_singular_hessian_is_damped_until_it_is_not_and_that_is_said(asked: float, used: float) -> None:
    made, record = damped(correlated(8, samples=3), asked)
    assert record == (asked, used)
    assert record.note == f"a singular Hessian was damped by 1e-06 of its mean diagonal, not {asked:g}"
    assert float(torch.linalg.eigvalsh(made).min()) > 0


def test_every_damping_grows_tenfold() -> None:
    """In float32, 400 equal inputs at a damping of 1e-6 or 1e-5 are no more than rounding apart."""
    given = torch.ones(1, 400, 400)
    assert damped(given, 1e-6)[1].used == pytest.approx(1e-4)
    assert not damped(given, 1e-3)[1].note


def test_scales_of_columns_are_no_reason_to_damp() -> None:
    given = torch.diag(torch.logspace(-12, 12, 9, dtype=torch.float64))
    made, record = damped(given, 0.0)
    assert torch.equal(made, given)
    assert not record.note


def test_columns_without_inputs_stand_for_themselves() -> None:
    given = correlated(6)
    given[:, 2] = 0
    given[:, :, 2] = 0
    made, record = damped(given, 0.0)
    assert not record.note
    rest = [0, 1, 3, 4, 5]
    assert torch.equal(made[:, rest][:, :, rest], given[:, rest][:, :, rest])
    assert bool((made[:, 2, 2] > 0).all())
    assert int(made[:, 2].count_nonzero()) == 2
    assert torch.equal(damped(torch.zeros(1, 3, 3), 0.5)[0], torch.eye(3)[None])


def test_wrong_numbers_are_typed_errors() -> None:
    for wrong in (-0.1, float("nan")):
        with pytest.raises(UsageError, match="damping"):
            damped(correlated(3), wrong)
    with pytest.raises(UsageError, match="not finite"):
        damped(torch.full((1, 2, 2), float("nan")), 0.1)


def is_a_factor(made: Callable[[Tensor], Tensor]) -> None:
    """Upper, positive on the diagonal, and its square is NumPy's inverse; row j gives the inverse from j on."""
    given = correlated(12)
    factor = made(given)
    assert torch.equal(factor, factor.triu())
    assert bool((factor.diagonal(dim1=1, dim2=2) > 0).all())
    np.testing.assert_allclose((factor.mT @ factor).numpy(), np.linalg.inv(given.numpy()), rtol=1e-8, atol=1e-12)
    for j in (0, 5, 11):
        rows = np.linalg.inv(given.numpy()[:, j:, j:])[:, 0]
        np.testing.assert_allclose(factor[:, j, j:] / factor[:, j, j, None], rows / rows[:, :1], rtol=1e-8, atol=1e-10)


def test_the_factor_of_the_inverse() -> None:
    is_a_factor(inverse_factor)
    np.testing.assert_allclose(
        inverse(correlated(12)).numpy(), np.linalg.inv(correlated(12).numpy()), rtol=1e-8, atol=1e-12
    )


@pytest.mark.parametrize(
    "broken",
    [
        lambda h: torch.linalg.inv(torch.linalg.cholesky(h)).mT,  # squares to the inverse in the other order
        lambda h: torch.linalg.cholesky(torch.linalg.inv(h)),  # lower
    ],
)
def test_another_factor_is_seen(broken: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(AssertionError):
        is_a_factor(broken)
