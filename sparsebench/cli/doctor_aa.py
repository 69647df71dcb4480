"""`sparsebench doctor --aa N`: how often verdicts are wrong here, and how often they find what is planted."""

from __future__ import annotations

import json
import sys
import time

import click

from sparsebench.cli.errors import INTERRUPTED, say
from sparsebench.errors import SparsebenchError
from sparsebench.registry import load_registry


def measure(comparisons: int, as_json: bool) -> int:
    """Measure, saying how far it is, and print rates with their exact 95 % intervals; 4 if a comparison failed."""
    from sparsebench.cli.progress import Progress, interruptible
    from sparsebench.harness.aa import Trust, trials

    trust, began, stopped = Trust(), time.monotonic(), 0
    try:
        with interruptible(), Progress() as progress:
            for trust in trials(comparisons, load_registry(), listener=progress):
                click.echo(f"{trust.attempts} of {comparisons} comparisons, {trust.false_alarms} false alarms; "
                           f"{(time.monotonic() - began) / 60:.1f} min", err=True)  # fmt: skip
    except (KeyboardInterrupt, SparsebenchError) as error:
        if not trust.attempts:
            raise
        stopped = INTERRUPTED if isinstance(error, KeyboardInterrupt) else error.exit_code
        say(f"{str(error) or 'interrupted'}: what follows is of the experiments that ended", stopped)
    known = {**trust.facts(), "minutes": round((time.monotonic() - began) / 60, 2)}
    click.echo(json.dumps(known, indent=2) if as_json else _told(known))
    sys.stdout.flush()
    return stopped or (4 if trust.failed else 0)


def _told(known: dict[str, object]) -> str:
    alarm, power = known["false_alarm_interval"], known["power_interval"]
    lines = [
        f"a kernel against itself     {known['comparisons']} comparisons: {known['false_alarms']} false alarms "
        f"({_percent(known['false_alarm_rate'])}, 95 % interval {_span(alarm)}), {known['same']} same, "
        f"{known['inconclusive']} inconclusive",
        f"slower by {known['planted_percent']} %               {known['trials']} trials: {known['found_slower']} "
        f"found slower ({_percent(known['power'])}, 95 % interval {_span(power)}), {known['called_faster']} "
        f"called faster, {known['undecided']} undecided",
        f"took                        {known['minutes']} minutes, {known['blocks']} blocks",
    ]
    if known["failed"]:
        lines.append(f"failed                      {known['failed']}, which say nothing: see `sparsebench check cpp`")
    return "\n".join([*lines, "\nNext: sparsebench ab A B"])


def _percent(share: object) -> str:
    return f"{100 * float(str(share)):.1f} %"


def _span(interval: object) -> str:
    assert isinstance(interval, list)
    return f"{_percent(interval[0])} to {_percent(interval[1])}"
