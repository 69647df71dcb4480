"""im2col against torch's own, and its adjoint by the definition of an adjoint."""

from dataclasses import replace

import torch

from sparsebench.builtin.backends._unfold import fold, unfold


def patches_of(problem, x: torch.Tensor) -> torch.Tensor:
    p = problem
    patches = torch.nn.functional.unfold(x, p.kernel_size, p.dilation, p.padding, p.stride)
    return patches.transpose(0, 1).reshape(patches.shape[1], -1)


def test_unfold_is_im2col_with_the_image_beside_the_pixel(problem) -> None:
    if problem.op == "conv2d":
        x = torch.randn(problem.input_shape)
        assert torch.equal(unfold(problem, x), patches_of(problem, x))
        assert torch.equal(unfold(problem, x[:1].expand(x.shape)), patches_of(problem, x[:1].expand(x.shape)))


def test_fold_is_the_adjoint_of_unfold(problem) -> None:
    if problem.op == "conv2d":
        x = torch.randn(problem.input_shape, dtype=torch.float64)
        other = torch.randn(unfold(problem, x).shape, dtype=torch.float64)
        left, right = (unfold(problem, x) * other).sum(), (x * fold(problem, other, x.shape)).sum()
        assert torch.isclose(left, right, rtol=1e-12)
        shifted = fold(problem, other.roll(1, 0), x.shape)
        assert not torch.isclose(left, (x * shifted).sum(), rtol=1e-6), "the check cannot fail"


def test_unfold_follows_the_input_and_not_the_hint(problem) -> None:
    if problem.op == "conv2d":
        larger = replace(problem, height=problem.height + 4)
        x = torch.randn(larger.input_shape)
        assert torch.equal(unfold(problem, x), patches_of(problem, x))
