"""Text through the training package: what fits which model, every next token judged, and nothing scaled or averaged."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsebench.errors import PluginError, TrainingError, UsageError
from sparsebench.pruning.sizes import positions, sparsities
from sparsebench.registry import load_registry
from sparsebench.training.data import Examples, Inputs, Splits, load_splits, parse_inputs
from sparsebench.training.diagnosis import first_not_finite
from sparsebench.training.evaluate import MOST_LABELS, evaluate, judge, loss_metrics
from sparsebench.training.loop import train
from sparsebench.training.normalise import SCALES, normalised
from sparsebench.training.norms import reestimate_norms
from sparsebench.training.recipe import Recipe

VOCABULARY = 5


class Follower(nn.Module):
    """A language model that maps each token to logits by a table."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(table, freeze=False)
        self.head = nn.Linear(table.shape[1], table.shape[1], bias=False)
        nn.init.eye_(self.head.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.table(tokens))


def part(count: int, length: int = 6) -> Examples:
    """Counting upwards: the next token is the token and one."""
    start = torch.arange(count).unsqueeze(1) + torch.arange(length + 1)
    return Examples(start[:, :-1] % VOCABULARY, start[:, 1:] % VOCABULARY)


def entry(load: Any, classes: int = VOCABULARY) -> Any:
    return SimpleNamespace(spec=SimpleNamespace(name="mine", classes=classes), load=lambda: load)


def text(length: int = 6) -> Splits:
    return Splits(part(8, length), part(3, length), part(4, length))


def test_what_a_model_says_that_it_takes() -> None:
    assert parse_inputs("tokens") == Inputs("tokens", ())
    assert parse_inputs("tokens:64") == Inputs("tokens", (64,))
    assert parse_inputs("3x8x9") == Inputs("images", (3, 8, 9))
    assert parse_inputs("features").typical == (784,)
    assert (parse_inputs("tokens").typical, parse_inputs("tokens:64").typical) == ((128,), (64,))
    for inputs in ("tokens:0", "tokens:", "tokens:-3", "tokens:3x3", "token", "Tokens"):
        with pytest.raises(PluginError, match='"tokens:LENGTH" as in "tokens:128"'):
            parse_inputs(inputs)


@pytest.mark.parametrize(("inputs", "asked"), [("tokens:4", 4), ("tokens", None), ("3x8x8", None)])
def test_the_data_set_cuts_to_the_length_of_a_model_of_text(inputs: str, asked: int | None) -> None:
    seen: list[int | None] = []

    def load(root: Any, length: int | None = None) -> Splits:
        seen.append(length)
        return text(length or 6)

    if inputs == "3x8x8":
        with pytest.raises(UsageError, match=r"mine is text and the model takes 3x8x8.*\"tokens\""):
            load_splits(entry(load), inputs)
    else:
        fitted, channels = load_splits(entry(load), inputs)
        assert channels == fitted.train.inputs.shape[1] == (asked or 6)
    assert seen == [asked]


def test_images_and_text_do_not_go_into_one_another() -> None:
    registry = load_registry()
    for data, inputs in (("digits", "tokens:128"), ("noise", "tokens")):
        with pytest.raises(UsageError, match=f"{data} is no text and the model takes {inputs}"):
            load_splits(registry.datasets[data], inputs)
    for inputs in ("features", "1x28x28"):
        with pytest.raises(UsageError, match=f"toy-text is text and the model takes {inputs}"):
            load_splits(registry.datasets["toy-text"], inputs)
    with pytest.raises(UsageError, match="texts of 6 tokens, longer than the tokens:4"):
        load_splits(entry(lambda root: text()), "tokens:4")
    assert load_splits(entry(lambda root: text()), "tokens:9")[1] == 6, "shorter ones are taken as they are"


def broken() -> dict[str, Splits]:
    good = part(3)
    return {
        "labels of another length": Splits(good, good, Examples(good.inputs, good.labels[:, :-1])),
        "one label each": Splits(good, good, Examples(good.inputs, good.labels[:, 0])),
        "another length": Splits(good, good, part(3, 7)),
        "a float part": Splits(good, good, Examples(good.inputs.float(), good.labels[:, 0])),
        "a token too high": Splits(good, good, Examples(good.inputs + 1, good.labels)),
        "a token below 0": Splits(good, good, Examples(good.inputs - 1, good.labels)),
        "a label too high": Splits(good, good, Examples(good.inputs, good.labels + 1)),
        "three dimensions": Splits(*[Examples(good.inputs[..., None], good.labels[..., None])] * 3),
        "int32": Splits(*[Examples(good.inputs.int(), good.labels)] * 3),
        "no text": Splits(good, good, Examples(good.inputs[:0], good.labels[:0])),
    }


@pytest.mark.parametrize("kind", broken())
def test_a_loader_that_breaks_the_contract_of_text_is_named(kind: str) -> None:
    with pytest.raises(PluginError, match="data set mine") as caught:
        load_splits(entry(lambda root: broken()[kind]), "tokens")
    assert "\n" not in str(caught.value)


def by_hand(model: nn.Module, examples: Examples) -> tuple[float, float]:
    """One token after the other, in float64."""
    right, nats = 0, 0.0
    for tokens, wanted in zip(examples.inputs, examples.labels, strict=True):
        logits = model(tokens.unsqueeze(0))[0].double().tolist()
        for row, label in zip(logits, wanted.tolist(), strict=True):
            right += row.index(max(row)) == label
            nats += math.log(sum(math.exp(each) for each in row)) - row[label]
    return right / examples.labels.numel(), nats / examples.labels.numel()


def last_only(model: nn.Module, examples: Examples) -> tuple[float, float]:
    """The fault of counting examples where tokens are to be counted."""
    cut = Examples(examples.inputs[:, -1:], examples.labels[:, -1:])
    return by_hand(model, cut)


def check_judge(function: Any) -> None:
    torch.manual_seed(0)
    model, examples = Follower(torch.randn(VOCABULARY, VOCABULARY)), part(7)
    assert function(model, examples) == pytest.approx(by_hand(model, examples), rel=1e-6)


def test_every_next_token_counts() -> None:
    check_judge(judge)
    with pytest.raises(AssertionError):
        check_judge(last_only)


def test_batches_of_long_texts_are_small_and_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    model, examples = Follower(torch.eye(VOCABULARY)), part(40, 512)
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].numel()))
    whole = judge(model, examples)
    assert max(sizes) <= MOST_LABELS
    monkeypatch.setattr("sparsebench.training.evaluate.MOST_LABELS", 1)
    assert judge(model, examples) == pytest.approx(whole)
    assert evaluate(model, examples) == whole.accuracy == 0.0


def test_metrics_of_a_loss() -> None:
    images = Examples(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
    assert loss_metrics(0.5, images) == {"test_loss": 0.5}
    assert loss_metrics(math.log(7), part(2)) == {"test_loss": math.log(7), "perplexity": pytest.approx(7)}
    assert loss_metrics(float("nan"), part(2)) == loss_metrics(float("inf"), images) == {}
    assert loss_metrics(1e6, part(2)) == {"test_loss": 1e6}, "its perplexity is no number"


@pytest.mark.parametrize("scale", [name for name in SCALES if name != "none"])
def test_text_is_not_scaled(scale: str) -> None:
    with pytest.raises(UsageError, match="is for images, and the inputs are text"):
        normalised(text(), scale)
    assert normalised(text(), "none").train.inputs.dtype == torch.int64


def test_a_language_model_is_trained_and_its_test_loss_told() -> None:
    torch.manual_seed(0)
    model = Follower(torch.randn(VOCABULARY, VOCABULARY))
    result = train(model, text(), Recipe(epochs=30, batch=4, lr=0.5))
    assert (result.accuracy, result.validation_accuracy) == (1.0, 1.0)
    assert result.test_loss == pytest.approx(judge(model, part(4)).loss) != pytest.approx(0)
    assert reestimate_norms(model, part(4), 2, 0) == 0


def test_a_loss_that_is_not_finite_names_the_layer() -> None:
    model = Follower(torch.full((VOCABULARY, VOCABULARY), 1e30))
    with torch.no_grad():
        model.head.weight.mul_(1e30)
    with pytest.raises(TrainingError, match="the output of head is not finite"):
        train(model, text(), Recipe(epochs=1, batch=4))
    with torch.no_grad():
        model.table.weight[2, 1] = float("nan")
    assert first_not_finite(model, part(2).inputs) == "table.weight is not finite"


def test_a_layer_is_used_at_every_token_and_an_embedding_multiplies_nothing() -> None:
    model, tokens = Follower(torch.eye(VOCABULARY)), part(3).inputs
    assert positions(model, tokens) == {"head.weight": 6}
    keep = torch.ones(VOCABULARY, VOCABULARY, dtype=torch.bool)
    keep[0] = False
    assert sparsities(model, {"head.weight": keep}, tokens) == {
        "sparsity": 0.2, "sparsity_all": 0.1, "sparsity_flops": 0.2,
    }  # fmt: skip
