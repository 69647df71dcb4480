"""The `cpp` backend: checks tensors and hands their addresses to the compiled layers."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sparsebench.builtin.backends._cpp_plan import (
    Plan,
    choose_plan,
    packed_elements,
    wasteful,
    with_options,
    within,
    worthwhile,
)
from sparsebench.builtin.backends._images import aligned, as_images, as_output_images, output_shape, threads_for
from sparsebench.kernels import _cpp
from sparsebench.plugin import Problem, ProblemError, SparseWeight, UnsupportedError, tuned_plan

ISA_VARIABLE = "SPARSEBENCH_ISA"
OFFSETS = 2**31  # bytes of a packing that an int32 reaches
SIZES_KEPT = 64  # sizes of input whose plan is remembered


class CppBackend:
    """Any linear or conv2d layer in float32.

    `isa` forces an instruction set, as the environment variable SPARSEBENCH_ISA does; `layout`, `tile` and `block`
    force parts of the plan. Without those, what `sparsebench tune` has measured counts, then the cost model.
    """

    def __init__(
        self, isa: str | None = None, layout: str | None = None, tile: int | None = None, block: int | str | None = None
    ) -> None:
        self.name = "cpp" if isa is None else f"cpp@isa={isa}"
        self.isa = isa or os.environ.get(ISA_VARIABLE) or next(iter(_cpp.isas()))
        options = {"layout": layout, "tile": tile, "block": block}
        self._forced = {name: value for name, value in options.items() if value is not None}

    def plans(self, problem: Problem) -> list[dict[str, str | int]]:
        """The options worth measuring for a problem, its own choice first."""
        return worthwhile(problem)

    def unsupported(self, problem: Problem) -> str | None:
        """Why not, or None: a dtype or an instruction set without loops, or an image beyond the offsets."""
        if self.isa not in _cpp.isas():
            return f"this CPU does not run isa={self.isa} (it runs {', '.join(_cpp.isas())})"
        if problem.dtype != "float32":
            return f"its loops are compiled for float32, not for {problem.dtype}"
        if 4 * packed_elements(problem, 1) >= OFFSETS:
            return "one padded image takes more than 2 GiB, and offsets are int32"
        return None

    def bind(self, problem: Problem, weight: SparseWeight) -> CppKernel:
        """A kernel with its own copy of the values. Raises `UnsupportedError` for what `unsupported` names."""
        if reason := self.unsupported(problem):
            raise UnsupportedError(f"cpp: {reason}")
        if weight.values.dtype != torch.float32:
            raise UnsupportedError(f"cpp: values are {weight.values.dtype}, and its loops are compiled for float32")
        lanes, most_vectors = _cpp.isas()[self.isa]
        density = weight.values.numel() / max(1, problem.out_features * problem.columns)
        tuned = {} if self._forced else tuned_plan(self.name, problem) or {}

        def choose(hint: Problem) -> Plan:
            plan = choose_plan(hint, density, lanes, most_vectors)
            forced = self._forced or (tuned if hint == problem else {})
            return within(OFFSETS, hint, with_options(plan, forced, hint, lanes), lanes)

        return CppKernel(problem, weight, self.isa, choose, "tuned" if tuned else "")


class CppKernel:
    """One bound weight, computed by the plan for the size of input that comes; the two plans used last are kept."""

    def __init__(
        self, problem: Problem, weight: SparseWeight, isa: str, choose: Callable[[Problem], Plan], origin: str = ""
    ) -> None:
        self.problem = problem
        self._isa, self._choose = isa, choose
        self._nnz = weight.values.numel()
        self._pattern = (weight.indptr.contiguous(), weight.indices.contiguous())  # layers read them where they are
        self.plan = choose(problem)
        self.note = " ".join(filter(None, (isa, origin, self.plan.describe())))
        self._layers = {self.plan: self._new_layer(problem, self.plan, weight.values.resolve_neg().contiguous())}
        self._chosen: dict[tuple[int, ...], Plan] = {}

    def _new_layer(self, problem: Problem, plan: Plan, values: Tensor) -> _cpp.Layer:
        return _cpp.Layer(
            self._isa, (problem.out_features, problem.in_features), problem.kernel_size, problem.stride,
            problem.padding, problem.dilation, problem.groups, self._pattern[0].data_ptr(), self._pattern[1].data_ptr(),
            values.data_ptr(), (plan.tile, plan.images, plan.forward_block, plan.backward_block),
            (problem.height, problem.width),
        )  # fmt: skip

    def _layer_for(self, images: Tensor) -> tuple[Plan, _cpp.Layer]:
        """The layer for this size of input: the bound one, if its plan serves it nearly as well as its own would."""
        size = (images.shape[0], images.shape[2], images.shape[3])
        if size not in self._chosen:
            if len(self._chosen) == SIZES_KEPT:
                self._chosen.clear()
            hint = replace(self.problem, batch=max(1, size[0]), height=size[1], width=size[2])
            own = self._choose(hint)
            serves = own.images == self.plan.images or not wasteful(self.plan, own, hint)
            fits = 4 * packed_elements(hint, self.plan.images) < OFFSETS
            self._chosen[size] = self.plan if serves and fits else own
        plan = self._chosen[size]
        if plan not in self._layers:
            values = torch.empty(self._nnz, dtype=torch.float32, device="cpu")
            next(iter(self._layers.values())).get_values(values.data_ptr())
            if len(self._layers) == 2:
                self._layers.pop(next(other for other in self._layers if other != self.plan))
            self._layers[plan] = self._new_layer(self.problem, plan, values)
        return plan, self._layers[plan]

    @property
    def nbytes(self) -> int:
        """Bytes of the pattern and its values, in the directions built so far."""
        return sum(layer.nbytes for layer in self._layers.values())

    def set_values(self, values: Tensor) -> None:
        """Take new values [nnz] in CSR order; they are copied."""
        if values.shape != (self._nnz,) or values.dtype != torch.float32:
            raise ProblemError(
                f"values are {values.dtype} {tuple(values.shape)}, but the kernel was bound to torch.float32 "
                f"({self._nnz},); bind a new one"
            )
        values = aligned(values).contiguous()
        for layer in self._layers.values():
            layer.set_values(values.data_ptr())

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [batch, in] or [N, C, H, W] -> [batch, out] or [N, out, H', W'], channels-last if x is."""
        return self._forward(self._images(x), bias, None)

    def forward_saving(self, x: Tensor, bias: Tensor | None = None) -> tuple[Tensor, tuple[Plan, Tensor] | None]:
        """`forward`, and the packed x for `backward` where keeping it costs less than packing again."""
        images = self._images(x)
        plan, layer = self._layer_for(images)
        size = layer.saved_size(images.shape[0], images.shape[2], images.shape[3])
        if size == 0 or size * 4 > plan.most_saved:
            return self._forward(images, bias, None), None
        packing = torch.empty(size, dtype=torch.float32, device="cpu")
        return self._forward(images, bias, packing), (plan, packing)

    def backward(
        self,
        x: Tensor,
        grad_output: Tensor,
        needs: tuple[bool, bool] = (True, True),
        saved: tuple[Plan, Tensor] | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """(grad_input, as x; gradient of the values [nnz]); None for what `needs` does not ask for."""
        images = self._images(x)
        grads = as_output_images(grad_output, images, self.problem)
        grad_input = _empty(images.shape, images) if needs[0] else None
        grad_values = torch.empty(self._nnz, dtype=torch.float32, device="cpu") if needs[1] else None
        plan, layer = self._layer_for(images)
        packing = saved[1] if saved is not None and saved[0] == plan else None
        layer.backward(
            images.data_ptr(), images.stride(), images.shape, grads.data_ptr(), grads.stride(),
            0 if grad_input is None else grad_input.data_ptr(),
            (0, 0, 0, 0) if grad_input is None else grad_input.stride(),
            0 if grad_values is None else grad_values.data_ptr(),
            0 if packing is None else packing.data_ptr(), self._threads(images),
        )  # fmt: skip
        return None if grad_input is None else grad_input.reshape(x.shape), grad_values

    def _forward(self, images: Tensor, bias: Tensor | None, packing: Tensor | None) -> Tensor:
        out = _empty(output_shape(images, self.problem), images)
        if bias is not None:
            if bias.shape != (self.problem.out_features,):
                raise ProblemError(
                    f"bias is {tuple(bias.shape)}; {self.problem.describe()} has {self.problem.out_features}"
                )
            bias = aligned(bias.to(torch.float32)).contiguous()
        _, layer = self._layer_for(images)
        layer.forward(
            images.data_ptr(), images.stride(), images.shape, 0 if bias is None else bias.data_ptr(), out.data_ptr(),
            out.stride(), 0 if packing is None else packing.data_ptr(), self._threads(images),
        )  # fmt: skip
        return out if self.problem.op == "conv2d" else out.flatten(1)

    def _images(self, x: Tensor) -> Tensor:
        """x as [images, channels, height, width], checked."""
        images = as_images(x, self.problem, torch.float32)
        sized = replace(self.problem, height=images.shape[2], width=images.shape[3])
        if 4 * packed_elements(sized, 1) >= OFFSETS:
            raise ProblemError(f"x is {tuple(x.shape)}: one padded image takes more than 2 GiB, and offsets are int32")
        return images

    def _threads(self, images: Tensor) -> int:
        down, across = self.problem.output_size_of(images.shape[2], images.shape[3])
        return threads_for(self._nnz * images.shape[0] * down * across)


def _empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Uninitialised [images, channels, height, width], as `like` is: channels-last, features by batch, or plain."""
    options: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    if like.is_contiguous():
        return torch.empty(shape, **options)
    if like.is_contiguous(memory_format=torch.channels_last):
        return torch.empty(shape, memory_format=torch.channels_last, **options)
    if like.shape[2:] == shape[2:] == (1, 1) and like.stride(0) == 1:
        return torch.empty((shape[1], shape[0], 1, 1), **options).transpose(0, 1)
    return torch.empty(shape, **options)
