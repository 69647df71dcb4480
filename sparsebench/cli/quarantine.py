"""Says on stderr which plugins are left out and why, and which are listed under another name than their own."""

from __future__ import annotations

import click

from sparsebench.registry import KINDS, Registry


def say_quarantined(registry: Registry) -> None:
    """One line for each plugin that is quarantined, and for each thing that had to be listed under a longer name."""
    for info in registry.plugins:
        if info.error:
            click.echo(f"sparsebench: plugin {info.name} is left out: {info.error}", err=True)
    for kind in KINDS:
        for name, entry in getattr(registry, kind).items():
            if entry.note:
                where = f"plugin {entry.plugin.name}: its {kind[:-1]}"
                click.echo(f"sparsebench: {where} is listed as {name!r}: {entry.note}", err=True)
