"""A run on disk."""

import pytest

from sparsebench.runs.store import RunWriter


@pytest.fixture
def stored(tmp_path, run_of):
    """A run on disk: (folder, the run as it was made)."""
    run = run_of()
    with RunWriter.create(tmp_path / "run", run.info) as writer:
        for block in range(5):
            writer.append([s for s in run.samples if s.block == block])
    return tmp_path / "run", run
