"""Where the small suite and the plugins that misbehave are."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_suite() -> str:
    """Path of a suite file with one problem and two passes, one block."""
    return str(Path(__file__).with_name("tiny.toml"))


@pytest.fixture(scope="session")
def adversarial() -> Path:
    """The folder of plugins that misbehave, one way each."""
    return Path(__file__).parents[1] / "adversarial"
