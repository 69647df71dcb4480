"""scikit-learn's digits as images in [0, 1] with a fixed stratified split."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from sparsebench.plugin import DatasetMissing, Examples, Splits

TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1
LEVELS = 16  # pixels count the set cells of a 4x4 bitmap: 0 .. 16


def missing(root: Path | None = None) -> str | None:
    """Why the set is not here; it needs no folder, only scikit-learn."""
    try:
        _source()
    except DatasetMissing as error:
        return str(error)
    return None


def load(root: Path | None = None) -> Splits:
    """Images float32 [n, 1, 8, 8] in [0, 1]; about 70 % train, 10 % validation, 20 % test of every class.

    Writers are mixed over the splits, as everyone does with this set: it shows whether training works, it is no
    measure of generalising to new people. `root` is not needed.
    """
    import numpy as np
    import torch

    # Importing scikit-learn takes two seconds and loads a second OpenMP runtime beside torch's, which must not
    # be in a process that times kernels. Its data file alone has neither cost.
    table = np.loadtxt(_source(), delimiter=",")
    images = torch.from_numpy(table[:, :64] / LEVELS).to(torch.float32).reshape(-1, 1, 8, 8)
    labels = torch.from_numpy(table[:, 64].astype(np.int64))
    parts: tuple[list, list, list] = ([], [], [])
    random = np.random.RandomState(0)  # the legacy generator: its stream is frozen over numpy versions
    for label in range(10):
        members = random.permutation(np.flatnonzero(table[:, 64] == label))
        cuts = [round(TEST_SHARE * len(members)), round((TEST_SHARE + VALIDATION_SHARE) * len(members))]
        for part, chosen in zip(parts, np.split(members, cuts), strict=True):
            part.append(chosen)
    chosen_ids = (torch.from_numpy(np.sort(np.concatenate(part))) for part in parts)
    test, validation, train = (Examples(images[ids], labels[ids]) for ids in chosen_ids)
    return Splits(train, validation, test)


def _source() -> Path:
    spec = importlib.util.find_spec("sklearn")
    path = Path((spec and spec.origin) or "").parent / "datasets" / "data" / "digits.csv.gz"
    if not path.is_file():
        raise DatasetMissing(f"digits: {path} is not there; it comes with scikit-learn: pip install scikit-learn")
    return path
