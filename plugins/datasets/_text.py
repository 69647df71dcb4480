"""What our texts share: a stream of tokens is cut into parts first, then into windows, so that no part sees another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparsebench.plugin import DatasetCorrupt, DatasetMissing, Examples, Splits, UsageError

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "text"  # below the folder of data sets
LENGTH = 128  # of a window, unless the model says


def file_of(root: Path | None, name: str) -> Path | None:
    """The file text/NAME below the folder of data sets, if it is there."""
    path = root / FOLDER / name if root is not None else None
    return path if path is not None and path.is_file() else None


def where_and_how(dataset: str, root: Path | None, names: str, address: str) -> str:
    """One sentence for a set that is not here: where `names` were looked for, and how to get them."""
    home = str(Path.home())  # the sentence is kept in records, which name no user
    place = f"{FOLDER}/" if root is None else f"{str(root).replace(home, '~')}/{FOLDER}/"
    return f"{dataset} is not in {place}, where {names} is looked for; get it from {address} and set SPARSEBENCH_DATA"


def read(path: Path | None, reason: str | None) -> str:
    """The text of a UTF-8 file; raises `DatasetMissing` with the reason if there is none, or `DatasetCorrupt`."""
    if path is None:
        raise DatasetMissing(reason or "")
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise DatasetCorrupt(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DatasetCorrupt(f"{path}: byte {error.start} is no UTF-8 text; get the file again") from error


def held_out(tokens: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The stream [n] without its end, and the end: `share` of all."""
    cut = len(tokens) - round(share * len(tokens))
    return tokens[:cut], tokens[cut:]


def windows(tokens: Tensor, length: int, where: str) -> Examples:
    """Examples [n, length] of a stream [m]: windows side by side, each label the token after its input.

    What is left over at the end is dropped. Raises `UsageError` naming `where` if there is not one window.
    """
    count = (len(tokens) - 1) // length
    if count < 1:
        raise UsageError(f"{where} has {len(tokens)} tokens, too few for a text of {length} and the token after it; "
                         "choose a model of shorter texts")  # fmt: skip
    whole = tokens[: count * length + 1].long()
    return Examples(whole[:-1].reshape(count, length), whole[1:].reshape(count, length))


def splits_of(name: str, parts: tuple[Tensor, Tensor, Tensor], length: int, note: str = "") -> Splits:
    """Windows of the streams for training, validation and test of the set `name`."""
    train, validation, test = (
        windows(part, length, f"{name}, {which},") for part, which in zip(parts, Splits._fields, strict=False)
    )
    return Splits(train, validation, test, note)
