"""A training that was interrupted and goes on from its file ends as one that was not, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsebench.builtin.methods._gmp import GMP
from sparsebench.errors import CheckpointError
from sparsebench.pruning.context import Context
from sparsebench.pruning.contract import Event, Update
from sparsebench.pruning.host import Host
from sparsebench.pruning.kernels import Kernels
from sparsebench.pruning.masks import top_k_mask
from sparsebench.registry import Registry, load_registry
from sparsebench.training.data import Splits
from sparsebench.training.loop import TrainResult, train
from sparsebench.training.recipe import Recipe
from sparsebench.training.state import read_state, write_state


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.2), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3)
    )


class TwoRounds:
    """Prunes a half after the first of two trainings and goes back to the weights of its third step; draws numbers."""

    needs = frozenset({"rounds"})

    def rounds(self, ctx: Context) -> int:
        return 2

    def on_event(self, event: Event, ctx: Context) -> Update | None:
        if event is Event.STEP_BEGIN and (ctx.round, ctx.step) == (0, 3):
            ctx.snapshot()
        if event is not Event.ROUND_BEGIN:
            return None
        ctx.restore()
        noise = {name: torch.rand(weight.shape, generator=ctx.generator) for name, weight in ctx.prunable.items()}
        return Update(masks=ctx.select({name: weight.abs() + noise[name] for name, weight in ctx.prunable.items()}))


class DrawsMasks:
    """Random masks at every epoch, from the host's generator."""

    def on_event(self, event: Event, ctx: Context) -> Update | None:
        if event is not Event.EPOCH_BEGIN:
            return None
        scores = {name: torch.rand(weight.shape, generator=ctx.generator) for name, weight in ctx.prunable.items()}
        return Update(masks=ctx.select(scores), reset="changed")


class Forgetful(GMP):
    """Does not say what it remembers."""

    state_dict = None  # type: ignore[assignment]


REGROW = "gmp@regrow=true,initial=0.6,end=1"  # weights do return
OWN: dict[str, Callable[[], Any]] = {"two rounds": TwoRounds, "draws": DrawsMasks, "forgetful": Forgetful}
Run = tuple[TrainResult, dict[str, dict[str, Tensor]]]


@pytest.fixture
def run(blobs: Splits, registry: Registry) -> Callable[..., Run | None]:
    """A training by a method; None if it was interrupted after epoch `stop`."""

    def go(
        name: str, *, stop: int = 0, file: Path | None = None, kernels: str = "", optimizer: str = "sgd"
    ) -> Run | None:
        entry, parameters = registry.find("methods", REGROW if name in OWN else name)
        host = Host(
            net(), OWN[name]() if name in OWN else entry.load()(), registry.create("allocators", "global"),
            sparsity=0.0 if name == "dense" else 0.7, parameters=parameters,
            kernels=Kernels(kernels, blobs.train.inputs[:32]) if kernels else None,
        )  # fmt: skip

        def progress(epoch: int, _loss: float, _accuracy: float) -> None:
            if epoch == stop:
                raise KeyboardInterrupt

        recipe = Recipe(
            epochs=4, batch=32, lr=0.3 if optimizer == "sgd" else 0.01, weight_decay=0.03, optimizer=optimizer
        )
        try:
            result = train(host.model, blobs, recipe, host=host, progress=progress, file=file)
        except KeyboardInterrupt:
            return None
        return result, host.export()

    return go


def check_resumes(
    run: Callable[..., Run | None], name: str, stops: tuple[int, ...], file: Path, **options: str
) -> None:
    whole = run(name, **options)
    assert whole is not None
    for stop in stops:
        assert run(name, stop=stop, file=file, **options) is None
    resumed = run(name, file=file, **options)
    assert resumed is not None
    (before, models), (after, others) = whole, resumed
    assert models.keys() == others.keys()
    for key, model in models.items():
        assert model.keys() == others[key].keys()
        for name_, tensor in model.items():
            assert torch.equal(tensor, others[key][name_]), (key, name_)
    assert [m[1:] for m in before.marks] == [m[1:] for m in after.marks]
    assert (before.accuracy, before.validation_accuracy, before.loss, before.steps) == (
        after.accuracy, after.validation_accuracy, after.loss, after.steps,
    )  # fmt: skip
    assert [path.name for path in file.parent.iterdir()] == [file.name]


NAMES = ["dense", "static", "gmp", REGROW, "acdc", "draws"]


@pytest.mark.parametrize("stops", [(1,), (2, 3), (4,)])
@pytest.mark.parametrize("kernels", ["", "cython"])
@pytest.mark.parametrize("name", NAMES)
def test_interrupted_is_uninterrupted(
    name: str, kernels: str, stops: tuple[int, ...], run: Callable[..., Run | None], tmp_path: Path
) -> None:
    check_resumes(run, name, stops, tmp_path / "state.pt", kernels=kernels)


@pytest.mark.parametrize("stops", [(2, 4), (5,), (6, 8)])  # 5: the state is that of the end of the first round
@pytest.mark.parametrize("kernels", ["", "cython"])
def test_so_it_is_over_rounds(
    kernels: str, stops: tuple[int, ...], run: Callable[..., Run | None], tmp_path: Path
) -> None:
    check_resumes(run, "two rounds", stops, tmp_path / "state.pt", kernels=kernels)


@pytest.mark.parametrize("name", [REGROW, "acdc", "two rounds"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_so_it_is_with_averages(optimizer: str, name: str, run: Callable[..., Run | None], tmp_path: Path) -> None:
    check_resumes(run, name, (3,), tmp_path / "state.pt", optimizer=optimizer, kernels="cpp")


def test_the_check_catches_a_method_that_forgets(run: Callable[..., Run | None], tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check_resumes(run, "forgetful", (3,), tmp_path / "state.pt")


def test_a_finished_training_is_read_and_not_trained(run: Callable[..., Run | None], tmp_path: Path) -> None:
    first, again = (run("acdc", file=tmp_path / "state.pt") for _ in range(2))
    assert first is not None
    assert again is not None
    assert first[0].marks == again[0].marks  # seconds too
    assert (first[0].accuracy, first[0].steps) == (again[0].accuracy, again[0].steps)
    assert all(torch.equal(first[1]["sparse"][name], again[1]["sparse"][name]) for name in first[1]["sparse"])


def test_without_a_host_masks_are_held_all_the_same(blobs: Splits, tmp_path: Path) -> None:
    models = []
    for file in (None, tmp_path / "state.pt"):
        model = net()
        masks = {"4.weight": top_k_mask(model[4].weight.detach().abs(), 100)}
        if file is not None:
            with pytest.raises(KeyboardInterrupt):
                train(net(), blobs, Recipe(epochs=3), masks=masks, file=file, progress=interrupt_at(2))
        train(model, blobs, Recipe(epochs=3), masks=masks, file=file)
        models.append(model)
    assert torch.equal(models[0][4].weight, models[1][4].weight)
    assert int(models[1][4].weight.detach().count_nonzero()) == 100


def interrupt_at(stop: int) -> Callable[[int, float, float], None]:
    def progress(epoch: int, _loss: float, _accuracy: float) -> None:
        if epoch == stop:
            raise KeyboardInterrupt

    return progress


def damaged(kind: str, good: bytes, path: Path) -> None:
    """Overwrite a state with something that is none."""
    if kind == "another version":
        torch.save({"version": 0}, path)
    elif kind == "a list":
        torch.save([1, 2], path)
    elif kind == "code":
        torch.save({"version": 1, "model": Recipe()}, path)
    else:
        path.write_bytes({"empty": b"", "cut short": good[: len(good) // 2], "text": b"not a state\n" * 9}[kind])


@pytest.mark.parametrize("kind", ["empty", "cut short", "text", "a list", "another version", "code"])
def test_a_damaged_file_is_named(kind: str, blobs: Splits, tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    train(net(), blobs, Recipe(epochs=1), file=file)
    damaged(kind, file.read_bytes(), file)
    with pytest.raises(CheckpointError, match=r"state\.pt: .*delete it to begin anew") as error:
        train(net(), blobs, Recipe(epochs=1), file=file)
    assert "\n" not in str(error.value)


def test_the_state_of_another_model_is_named(blobs: Splits, tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    train(nn.Linear(8, 3), blobs, Recipe(epochs=1), file=file)
    with pytest.raises(CheckpointError, match=r"state\.pt: is the state of another training") as error:
        train(net(), blobs, Recipe(epochs=2), file=file)
    assert "\n" not in str(error.value)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    state = {"model": {"weight": torch.arange(3.0)}, "place": [1, 2], "loss": 0.5}
    write_state(tmp_path / "state.pt", state)
    again = read_state(tmp_path / "state.pt")
    assert torch.equal(again.pop("model")["weight"], torch.arange(3.0))
    assert again == {"version": 1, "place": [1, 2], "loss": 0.5}
