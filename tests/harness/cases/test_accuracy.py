"""One training of one method: what it reports, that it repeats itself, goes on where it stopped, and cannot lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsebench.errors import BudgetError, CheckpointError, DatasetMissing, InvariantError, UsageError
from sparsebench.harness.cases import accuracy, time_to_accuracy
from sparsebench.harness.cases.base import Order, case_kind
from sparsebench.plugin import Update
from sparsebench.pruning.masks import kept
from sparsebench.registry import Registry
from sparsebench.training import loop

KINDS: Mapping[str, Any] = {"accuracy": accuracy, "time-to-accuracy": time_to_accuracy}
WRONG = ("wrong-sign-forward", "wrong-sign-grad-input", "one-wrong-value")
FC2 = 512 * 512
MakeOrder = Callable[..., Order]
Train = Callable[[Order], Any]


def metrics_of(job: Any) -> dict[str, float]:
    assert job.inspect().ok
    return job.scores()[1]


def exact(metrics: Mapping[str, float]) -> dict[str, float]:
    """Without what is measured in seconds."""
    return {name: value for name, value in metrics.items() if "seconds" not in name}


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_is_found_by_name_and_has_no_oracle(kind: str, order_of: MakeOrder, tmp_path: Path) -> None:
    assert case_kind(kind) is KINDS[kind]
    KINDS[kind].write_oracle(order_of(kind=kind), tmp_path / "oracle")
    assert (tmp_path / "oracle").read_bytes() == b""


def test_magnitude_keeps_exactly_the_budget_and_what_is_told_is_consistent(order_of: MakeOrder, trained: Train) -> None:
    job = trained(order_of())
    metrics, splits = metrics_of(job), job.scores()[0]
    state, count = job.host.export()["sparse"], kept(FC2, 0.9)
    assert int(job.host.masks["fc2.weight"].sum()) == int(state["fc2.weight"].count_nonzero()) == count
    ends = 64 * 512 + 512 * 10
    assert int(state["fc1.weight"].count_nonzero() + state["fc3.weight"].count_nonzero()) == ends
    assert metrics["sparsity"] == (FC2 - count) / (FC2 + ends)
    assert metrics["sparsity_all"] == (FC2 - count) / (FC2 + ends + 512 + 512 + 10)
    assert metrics["sparsity_flops"] == metrics["sparsity"], "of linear layers every weight is used once"
    assert 0.3 < metrics["accuracy"] <= 1
    assert 0 <= metrics["validation_accuracy"] <= 1
    assert metrics["bytes_dense"] == 4 * (FC2 + ends + 512 + 512 + 10)
    assert metrics["bytes_bitmask"] < metrics["bytes_csr"] < metrics["bytes_dense"]
    assert metrics["steps"] == 2 * (len(job.splits.train.labels) // 64)
    assert metrics["training_seconds"] > 0
    assert [*splits] == ["data", "forward", "backward", "optimizer", "mask"]
    assert sum(splits.values()) * metrics["steps"] == pytest.approx(metrics["training_seconds"] * 1e9)
    assert job.recheck().ok


def test_the_reference_keeps_every_weight(order_of: MakeOrder, trained: Train) -> None:
    metrics = metrics_of(trained(order_of("dense", sparsity=0.0)))
    assert (metrics["sparsity"], metrics["sparsity_all"], metrics["sparsity_flops"]) == (0, 0, 0)
    assert metrics["bytes_csr"] == metrics["bytes_bitmask"] == metrics["bytes_dense"]


@pytest.mark.parametrize("method", ["gmp", "static"])
def test_the_same_seed_gives_the_same_numbers_and_another_one_does_not(
    order_of: MakeOrder, trained: Train, method: str
) -> None:
    torch.manual_seed(1)
    first = exact(metrics_of(trained(order_of(method))))
    torch.manual_seed(2)
    assert exact(metrics_of(trained(order_of(method)))) == first
    other = exact(metrics_of(trained(order_of(method, seed=1))))
    assert other["loss"] != first["loss"]
    assert other["sparsity"] == first["sparsity"]


@pytest.mark.parametrize("backend", [{}, {"backend": "honest"}], ids=["masked", "on kernels"])
def test_a_training_that_was_stopped_goes_on_to_the_same_end(
    order_of: MakeOrder, trained: Train, backend: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = order_of("gmp@regrow=true", epochs=3, **backend)
    whole = trained(mine)
    write, written = loop.write_state, []

    def stop(path: Path, state: dict[str, Any]) -> None:
        write(path, state)
        written.append(state["place"])
        if len(written) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "write_state", stop)
    with pytest.raises(KeyboardInterrupt):
        trained(mine)
    job = accuracy.make(mine, None)
    job.run()
    assert len(written) == 3, "two epochs before, one after"
    assert exact(metrics_of(job)) == exact(metrics_of(whole))
    states = [each.host.export()["sparse"] for each in (job, whole)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])


def test_options_of_the_name_reach_the_method(order_of: MakeOrder, trained: Train) -> None:
    assert trained(order_of("gmp@regrow=true", epochs=1)).host.parameters["regrow"] is True
    with pytest.raises(UsageError, match="gmp prunes from begin = 0"):
        accuracy.unsupported(order_of("gmp@begin=0.9"), None)


@pytest.mark.parametrize("kind", KINDS)
def test_an_honest_backend_is_right_and_computes_the_same(order_of: MakeOrder, trained: Train, kind: str) -> None:
    sparse = trained(order_of("static", kind, goal=0.3, backend="honest"))
    dense = trained(order_of("static"))
    assert metrics_of(sparse)["loss"] == pytest.approx(metrics_of(dense)["loss"], rel=0.01)
    assert sparse.kernels.swaps >= 1
    assert dense.kernels is None


@pytest.mark.parametrize("name", WRONG)
def test_a_backend_with_one_wrong_sign_is_found_before_any_training(order_of: MakeOrder, name: str) -> None:
    found = accuracy.make(order_of(backend=name), None).verify()
    assert not found.ok
    assert "is off by" in (found.reason or "")


@pytest.mark.parametrize("changes", [{"backend": "torch-dense"}, {"backend": WRONG[0], "sparsity": 0.0}], ids=str)
def test_where_nothing_runs_on_a_kernel_there_is_none(order_of: MakeOrder, changes: dict[str, Any]) -> None:
    job = accuracy.make(order_of(**changes), None)
    assert job.kernels is None
    assert job.verify().ok


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("magnitude", {"allocator": "nm:2:5", "sparsity": 0.6}, "fc1.weight has 64 input channels, which are no whole"),
        ("magnitude", {"allocator": "nm:2:4"}, "nm:2:4 has the sparsity 0.5 and no other; 0.9"),
        ("magnitude", {"sparsity": 0.999999}, "fc2.weight has 262144 weights and keeps none"),
        ("static", {"exclude": ["fc2"]}, "uniform keeps the first and the last layer dense"),
    ],
)
def test_a_budget_that_cannot_be_is_told_before_any_training(
    order_of: MakeOrder, method: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BudgetError) as error:
        accuracy.unsupported(order_of(method, **changes), None)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_budget_on_the_way_there_is_the_methods_own_and_bars_no_other(order_of: MakeOrder) -> None:
    case = {"allocator": "nm:2:4", "sparsity": 0.5}
    assert "0.05 is not to be had" in (accuracy.unsupported(order_of("gmp", **case), None) or "")
    for method in ("magnitude", "static", "acdc"):
        assert accuracy.unsupported(order_of(method, **case), None) is None


def test_other_mistakes_are_told_before_any_training(order_of: MakeOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="exclude = 'fc9' is no Linear or Conv2d layer"):
        accuracy.unsupported(order_of(exclude=["fc9"]), None)
    monkeypatch.setenv("SPARSEBENCH_DATA", "/nowhere")
    monkeypatch.delenv("SPARSEBENCH_DOWNLOAD", raising=False)
    with pytest.raises(DatasetMissing):
        accuracy.unsupported(order_of(dataset="mnist"), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {f"net.{name}": tensor for name, tensor in s.items()}, "does not have fc1.weight"),
        (lambda s: {**s, "fc4.weight": torch.ones(2)}, "has fc4.weight, which the model does not know"),
        (lambda s: {**s, "fc2.weight": torch.ones(512, 300)}, "fc2.weight is [512, 300] and the model has [512, 512]"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_line(
    order_of: MakeOrder, all_installed: Registry, tmp_path: Path, change: Any, message: str
) -> None:
    state = all_installed.models["mlp"].load()(num_classes=10, in_channels=64).state_dict()
    file = tmp_path / "weights.pt"
    torch.save(state, file)
    assert accuracy.unsupported(order_of(checkpoint=str(file)), None) is None
    torch.save(change(state), file)
    with pytest.raises(CheckpointError) as error:
        accuracy.unsupported(order_of(checkpoint=str(file)), None)
    assert str(error.value).startswith(f"{file}: {message}")
    assert "\n" not in str(error.value)


def exporting(change: Callable[[dict[str, Tensor]], Any]) -> type:
    class Exports:
        def setup(self, ctx: Any) -> Update:
            return Update(masks=ctx.select({name: weight.abs() for name, weight in ctx.prunable.items()}))

        def export(self, ctx: Any) -> Any:
            return change(ctx.state())

    return Exports


LIES: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "masked weights that live": (lambda s: {"sparse": {**s, "fc2.weight": s["fc2.weight"] + 1e-6}}, "fc2.weight"),
    "no sparse model": (lambda s: {"dense": s}, "one must be named 'sparse'"),
    "nothing": (lambda s: {}, "one must be named 'sparse'"),
    "a name too few": (lambda s: {"sparse": {n: t for n, t in s.items() if n != "fc2.bias"}}, "fc2.bias"),
    "a twin of other names": (lambda s: {"sparse": s, "twin": {"a": s["fc2.bias"]}}, "export 'twin': other names"),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_export_that_cannot_be_is_wrong_by_name(order_of: MakeOrder, trained: Train, lie: str) -> None:
    change, message = LIES[lie]
    job = trained(order_of(exporting(change), epochs=1))
    with pytest.raises(InvariantError) as error:
        job.inspect()
    assert error.value.invariant == "export"
    assert message in str(error.value)


def test_an_export_of_another_model_is_wrong_and_an_honest_twin_is_scored(order_of: MakeOrder, trained: Train) -> None:
    found = trained(
        order_of(exporting(lambda s: {"sparse": {**s, "fc1.bias": s["fc1.bias"] + 0.1}}), epochs=1)
    ).inspect()
    assert not found.ok
    assert "logits of the export" in (found.reason or "")
    job = trained(order_of(exporting(lambda s: {"sparse": s, "twin": s}), epochs=1))
    assert job.inspect().ok
    assert job.scores()[1]["accuracy_twin"] == job.scores()[1]["accuracy"]
