"""The comparison accepts what rounding does and nothing else."""

import math

import pytest
import torch

from sparsebench.tolerance import EPS, MODEL_TOLERANCE, compare, compare_models, judged_precision

REFERENCE = torch.linspace(-2, 2, 1000, dtype=torch.float64).reshape(10, 100)
BOUND = torch.full((10, 100), 3.0)


@pytest.mark.parametrize("precision", sorted(EPS))
def test_the_tolerance_is_eight_eps_of_the_bound(precision: str) -> None:
    allowed = 8 * EPS[precision] * 3.0
    inside, outside = REFERENCE.clone(), REFERENCE.clone()
    inside[3, 3] += 0.9 * allowed
    outside[3, 3] += 1.1 * allowed
    assert compare("forward", inside, REFERENCE, BOUND, precision).ok
    finding = compare("forward", outside, REFERENCE, BOUND, precision)
    assert not finding.ok
    assert finding.max_rel_err == pytest.approx(8.8 * EPS[precision], rel=1e-3)
    assert finding.tolerance == 8 * EPS[precision]
    assert finding.reason is not None
    assert finding.reason.startswith("forward is off by")


@pytest.mark.parametrize(
    ("precision", "dtype", "judged"),
    [
        ("float32", "float32", "float32"),
        ("float32", "float64", "float64"),
        ("float64", "float64", "float64"),
        ("bfloat16", "float32", "bfloat16"),
        ("bfloat16", "float64", "bfloat16"),
    ],
)
def test_full_precision_is_the_dtypes_own(precision: str, dtype: str, judged: str) -> None:
    assert judged_precision(precision, dtype) == judged


def test_zeros_do_not_pass_in_a_coarse_precision() -> None:
    """8·eps·sqrt(K) exceeds 1 in bfloat16 for K > 1024: only the norm tells zeros from a result."""
    finding = compare("forward", torch.zeros(10, 100), REFERENCE, BOUND * 1000, "bfloat16")
    assert finding.reason == "forward is off by 100% in norm, 10% is allowed (it is all zeros)"


@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf])
def test_non_finite_results_are_infinitely_wrong(junk: float) -> None:
    got = REFERENCE.float()
    got[9, 99] = junk
    finding = compare("forward", got, REFERENCE, BOUND)
    assert not finding.ok
    assert finding.max_rel_err == math.inf


def test_where_the_bound_is_zero_the_result_is_exact() -> None:
    reference, bound = REFERENCE.clone(), BOUND.clone()
    reference[0], bound[0] = 0.0, 0.0
    got = reference.float()
    assert compare("forward", got, reference, bound).ok
    got[0, 0] = 1e-30
    assert compare("forward", got, reference, bound).max_rel_err == math.inf


def test_strides_shapes_and_chunks_do_not_matter() -> None:
    reference = torch.randn(300, 700, dtype=torch.float64)
    got = reference.float().T.contiguous().T
    assert compare("forward", got, reference, reference.abs().float()).ok
    got[299, 699] *= 1.001
    assert not compare("forward", got, reference, reference.abs().float()).ok


def test_nothing_is_right_about_an_empty_result_but_its_shape() -> None:
    empty = torch.empty(0, dtype=torch.float64)
    assert compare("grad_values", empty.float(), empty, empty.float()).ok
    assert not compare("grad_values", torch.zeros(1), empty, empty.float()).ok


@pytest.mark.parametrize(
    ("got", "reason"),
    [
        (None, "forward is None instead of a tensor"),
        ("text", "forward is a str instead of a tensor"),
        (torch.zeros(10, 99), "forward is of shape (10, 99) instead of (10, 100)"),
        (torch.zeros(10, 100, dtype=torch.float64), "forward is torch.float64 instead of torch.float32"),
        (torch.zeros(10, 100, dtype=torch.int32), "forward is torch.int32 instead of torch.float32"),
        (torch.zeros(10, 100).to_sparse(), "forward is a torch.sparse_coo tensor on cpu instead of"),
        (torch.zeros(10, 100, device="meta"), "forward is a torch.strided tensor on meta instead of"),
        (torch.zeros(10, 100, requires_grad=True), "forward is a tensor that requires grad"),
    ],
)
def test_junk_is_named(got: object, reason: str) -> None:
    finding = compare("forward", got, REFERENCE, BOUND, dtype=torch.float32)
    assert finding.reason is not None
    assert finding.reason.startswith(reason)
    assert finding.max_rel_err == math.inf


def gradients() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(50, 20, generator=generator) * scale for scale in (10.0, 1.0, 0.1)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_models_agree_within_their_precision(precision: str) -> None:
    reference = gradients()
    got = [one * (1 + 0.5 * MODEL_TOLERANCE[precision]) for one in reference]
    assert compare_models("gradients", got, reference, precision).ok
    assert not compare_models(
        "gradients", [one * (1 + 2 * MODEL_TOLERANCE[precision]) for one in got], reference, precision
    ).ok


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan])
def test_one_layer_of_a_model_is_enough_to_fail(precision: str, layer: int, factor: float) -> None:
    reference = gradients()
    got = [one * factor if index == layer else one.clone() for index, one in enumerate(reference)]
    finding = compare_models("gradients", got, reference, precision)
    assert not finding.ok
    assert finding.reason is not None
    assert f"tensor {layer}" in finding.reason


def test_rounding_alone_is_not_held_against_a_model() -> None:
    """The gradient of a bias before a batch-norm is nothing but rounding."""
    noise = torch.randn(20) * 1e-6
    assert compare_models("gradients", [*gradients(), -noise], [*gradients(), noise]).ok


def test_models_of_another_shape_do_not_agree() -> None:
    assert not compare_models("outputs", gradients()[:2], gradients()).ok
    assert not compare_models("outputs", [one[1:] for one in gradients()], gradients()).ok
    assert compare_models("outputs", [torch.zeros(3)], [torch.zeros(3)]).ok
    assert not compare_models("outputs", [torch.ones(3)], [torch.zeros(3)]).ok
