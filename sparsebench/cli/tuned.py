"""What `sparsebench tune` prints: the table of who is fastest where, the plans, what failed, and what is kept."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec

from sparsebench import plans
from sparsebench.cli.exit_codes import FAILING
from sparsebench.cli.list import table
from sparsebench.errors import UsageError
from sparsebench.runs.records import TIMED
from sparsebench.wrapping import WIDTH

if TYPE_CHECKING:
    from sparsebench.harness.outcomes import Candidate, Outcome
    from sparsebench.harness.targets import Target
    from sparsebench.problem import Problem

SHOWN = 12  # failures that are told one by one


def as_text(target: Target, outcomes: Sequence[Outcome], kept: Sequence[Outcome] | None) -> str:
    """Everything for people, in at most 100 columns."""
    if not outcomes:
        return "nothing was found"
    parts = [
        _head(target, outcomes),
        _fastest(outcomes),
        _legend(outcomes),
        _plans(outcomes),
        "\n".join(_sum(outcomes)),
    ]
    parts += ["\n".join(_failures(outcomes)), "\n".join(_left(target))]
    parts.append(_kept(outcomes, kept))
    return "\n\n".join(part for part in parts if part)


def as_json(target: Target, outcomes: Sequence[Outcome], kept: Sequence[Outcome] | None) -> str:
    """The same as one object."""
    made = {
        "target": target.name,
        "kept": str(plans.location()) if kept else None,
        "layers": [_object(each) for each in outcomes],
        "left_dense": target.left,
    }
    return json.dumps(made, indent=2)


def _kept(outcomes: Sequence[Outcome], kept: Sequence[Outcome] | None) -> str:
    if kept is None:
        return "Kept nothing, as --no-save says"
    where = f"Kept {len(kept)} of {len(outcomes)} in {plans.location()}" if kept else "Kept nothing."
    if len(kept) == len(outcomes):
        return where
    return f"{where}\nNot kept: where something else had the core (?); stop other work and tune again, or --keep-noisy"


def _object(outcome: Outcome) -> dict[str, Any]:
    winner = outcome.fastest()
    return {
        "layers": list(outcome.layers),
        "problem": asdict(outcome.problem),
        "pass": outcome.passes,
        "noisy": outcome.noisy,
        "dense": asdict(outcome.dense),
        "winner": None if winner is None else winner.variant,
        "backends": {
            name: {"best": best.variant, "plan": best.plan, "ratio": best.ratio, "gain": outcome.gain(name)}
            for name in outcome.backends
            if (best := outcome.best(name)) is not None
        },
        "candidates": [{"variant": each.variant, **asdict(each)} for each in outcome.candidates],
    }


def _head(target: Target, outcomes: Sequence[Outcome]) -> str:
    what = "forward and backward" if outcomes[0].passes == "both" else "forward"
    same = _same([each.problem for each in outcomes])
    return ", ".join([target.name, *same.values(), what]) + "; ratios to dense torch, above 1 is faster"


def _same(problems: Sequence[Problem]) -> dict[str, str]:
    """What all problems have in common, as text: it stands above the table, the rest in its rows."""
    texts = [_conditions(problem) for problem in problems]
    return {key: text for key, text in texts[0].items() if all(each[key] == text for each in texts)}


def _conditions(problem: Problem) -> dict[str, str]:
    threads = "1 thread" if problem.threads == 1 else f"{problem.threads} threads"
    return {
        "sparsity": f"{problem.sparsity:g} sparse",
        "pattern": problem.pattern,
        "batch": f"batch {problem.batch}",
        "threads": threads,
    }


def _fastest(outcomes: Sequence[Outcome]) -> str:
    """Two lines for each problem: layer and ratios, and what the layer is. The slowest backends give way to width."""
    from tabulate import tabulate

    same = _same([each.problem for each in outcomes])
    names = list(dict.fromkeys(name for each in outcomes for name in each.backends))
    names.sort(key=lambda name: -_best_ratio(outcomes, name))
    out: list[str] = []
    while True:
        rows: list[list[str]] = []
        for outcome in outcomes:
            time_ns = outcome.dense.time_ns
            dense = outcome.dense.status if time_ns is None else f"{time_ns / 1e6:.3g}"
            rows.append([_layers(outcome.layers), dense, *(_cell(outcome, name) for name in names)])
            rows.append([f"· {_short(outcome.problem, same)}"])
        text = tabulate(rows, ["layer", "dense ms", *names], "simple", disable_numparse=True)
        if max(map(len, text.splitlines())) <= WIDTH or not names:
            return text + (f"\nand slower: {', '.join(out)}" if out else "")
        out.insert(0, names.pop())


def _best_ratio(outcomes: Sequence[Outcome], backend: str) -> float:
    return max(each.speed for outcome in outcomes for each in outcome.candidates if each.backend == backend)


def _layers(names: Sequence[str]) -> str:
    """'layer1.0.conv1 and 3 like it'."""
    return names[0] + (f" +{len(names) - 1}" if len(names) > 1 else "")


def _cell(outcome: Outcome, backend: str) -> str:
    best, winner = outcome.best(backend), outcome.fastest()
    if best is not None and best.ratio is not None:
        return f"{best.ratio:.2f}x" + ("*" if winner is best else "") + ("?" if outcome.noisy else "")
    mine = [each for each in outcome.candidates if each.backend == backend]
    if not mine:
        return ""
    glances = [each.ratio for each in mine if each.ratio is not None]
    return f"~{max(glances):.2f}x" if glances else mine[0].status


def _legend(outcomes: Sequence[Outcome]) -> str:
    said = ["* the fastest" if any(each.fastest() for each in outcomes) else "nobody is faster than dense torch"]
    if any("~" in _cell(each, name) for each in outcomes for name in each.backends):
        said.append("~ too slow to be raced: the time of a first look")
    if any(each.noisy for each in outcomes):
        said.append("? something else had the core")
    if any(len(each.layers) > 1 for each in outcomes):
        said.append("+3: and three layers like it")
    return "; ".join(said)


def _plans(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for outcome in outcomes:
        for name in outcome.backends:
            best = outcome.best(name)
            if best is not None and best.plan is not None:
                tried = sum(each.backend == name for each in outcome.candidates)
                gain = "its own choice" if best.own else f"{outcome.gain(name):.2f}x its own choice"
                layer = f"{_layers(outcome.layers)} at {outcome.problem.sparsity:g}"
                rows.append({"layer": layer, "backend": name, "plan": _plan(best), "gain": gain, "tried": tried})
    return "Plans\n" + table(rows, ("layer", "backend", "plan", "gain", "tried")) if rows else ""


def _plan(candidate: Candidate) -> str:
    return plans.options_text(candidate.plan or {})


def _sum(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """All layers of a model together, each with its fastest."""
    if len(outcomes) < 2 or any(each.dense.time_ns is None for each in outcomes):
        return
    for sparsity in dict.fromkeys(each.problem.sparsity for each in outcomes):
        these = [each for each in outcomes if each.problem.sparsity == sparsity]
        dense = sum((each.dense.time_ns or 0.0) * len(each.layers) for each in these)
        best = sum(_best_ns(each) * len(each.layers) for each in these)
        text = f"All layers at {sparsity:g}: dense {dense / 1e6:.3g} ms"
        yield f"{text}, each with its fastest {best / 1e6:.3g} ms, {dense / best:.2f}x"


def _best_ns(outcome: Outcome) -> float:
    winner, dense_ns = outcome.fastest(), outcome.dense.time_ns or 0.0
    return dense_ns if winner is None else dense_ns / winner.speed


def _failures(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """What was wrong or failed, with the layers where; what is not supported, once for each reason."""
    found = [(outcome, each) for outcome in outcomes for each in (outcome.dense, *outcome.candidates)]
    failed: dict[tuple[str, str], list[str]] = {}
    for outcome, each in found:
        if each.status in FAILING:
            failed.setdefault((each.variant, f"{each.status}: {each.reason}"), []).append(outcome.layers[0])
    told = [f"  {variant}: {_layers(names)}: {why}" for (variant, why), names in failed.items()]
    yield from told[:SHOWN]
    if len(told) > SHOWN:
        yield f"  and {len(told) - SHOWN} more; --json has them all"
    others = [
        f"  {c.backend}: {c.status}: {c.reason}" for _, c in found if c.reason and c.status not in (*FAILING, *TIMED)
    ]
    yield from dict.fromkeys(others)


def _left(target: Target) -> Iterator[str]:
    for reason in dict.fromkeys(target.left.values()):
        names = [name for name, why in target.left.items() if why == reason]
        yield f"  {_layers(names)} stays dense: {reason}"


def _short(problem: Problem, same: Collection[str]) -> str:
    """'conv 64->128 3x3 32x32 /2', and what is not the `same` in all rows."""
    p = problem
    text = f"{p.in_features}->{p.out_features}"
    if p.op == "conv2d":
        text += f" {p.kernel_size[0]}x{p.kernel_size[1]} {p.height}x{p.width}"
        text += f" /{p.stride[0]}" if p.stride != (1, 1) else ""
        text += f" d{p.dilation[0]}" if p.dilation != (1, 1) else ""
        text += f" g{p.groups}" if p.groups != 1 else ""
    return ", ".join([text, *(each for key, each in _conditions(p).items() if key not in same)])


def shown(as_json: bool) -> str:
    """What is kept for this machine."""
    book = plans.read()
    if as_json:
        return json.dumps(msgspec.to_builtins(book), indent=2)
    if not (book.plans or book.fastest):
        where = plans.folder()
        place = f"; {plans.VARIABLE} is set to nothing, which turns plans off" if where is None else f" in {where}"
        return f"nothing is kept{place}\n\nNext: sparsebench tune MODEL --input SHAPE"
    rows = [
        {
            "problem": key,
            "pass": passes,
            "fastest": each.winner or "dense",
            "ratio": f"{each.times_ns['dense'] / each.times_ns[each.backend]:.2f}x" if each.backend else "",
            "made": each.made[:10],
            "holds": _holds(each.codes.values()),
        }
        for key, found in book.fastest.items()
        for passes, each in found.items()
    ]
    own = [
        {
            "problem": key,
            "backend": name,
            "plan": plans.options_text(each.options),
            "gain": f"{each.gain:.2f}x",
            "pass": each.passes,
            "holds": _holds([each.code]),
        }
        for name, found in book.plans.items()
        for key, each in found.items()
    ]
    parts = [f"Kept in {plans.location()}, for {book.machine.get('cpu', 'this machine')}"]
    parts.append("Fastest\n" + table(rows, ("problem", "pass", "fastest", "ratio", "made", "holds")))
    if own:
        parts.append("Plans\n" + table(own, ("problem", "backend", "plan", "gain", "pass", "holds")))
    return "\n\n".join([*parts, "Next: sparsebench tune --clear forgets it all"])


def _holds(codes: Any) -> str:
    """Whether the code that was measured is still here. Foreign code is not looked at: it would have to be imported."""
    known = [code for code in codes if code.sha256 and plans.code_of(code.module).sha256]
    return "yes" if all(map(plans.is_current, known)) else "no: other code"


def cleared() -> str:
    """Forget what is kept, and say so."""
    if plans.folder() is None:
        raise UsageError(f"{plans.VARIABLE} is set to nothing: there is nothing to forget; unset it first")
    gone = plans.clear()
    return "nothing was kept" if gone is None else f"forgot {gone}"
