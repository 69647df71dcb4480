"""MNIST and the sets published in its format: where their four files are, or how to get them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sparsebench.builtin.datasets._idx import read_idx
from sparsebench.builtin.datasets._images import examples_of, validating
from sparsebench.plugin import DatasetCorrupt, DatasetMissing, Splits

VALIDATION = 12  # every 12th training image validates: 5,000 of 60,000, so that the test set chooses nothing
PARTS = (("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
         ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"))  # fmt: skip


@dataclass(frozen=True)
class IdxDataset:
    """A set of four IDX files in a folder called `name`; calling it with the folder of data sets loads it."""

    name: str
    address: str
    megabytes: int
    digests: Mapping[str, str]  # file name -> SHA-256, or "md5:…", of the published file

    def __call__(self, root: Path | None = None) -> Splits:
        """Images float32 [n, 1, 28, 28] in [0, 1]; 55,000 train, 5,000 validation, 10,000 test.

        Raises `DatasetMissing` when the files are nowhere, `DatasetCorrupt` naming the file that cannot be
        read. Files of the user are read as they are (a recompressed copy is fine); downloads are checksummed.
        """

        folder = self._folder(root) or self._download(root)
        (images, labels), (test_images, test_labels) = (self._read(folder, *part) for part in PARTS)
        images, test_images = images.unsqueeze(1), test_images.unsqueeze(1)
        validates = validating(len(labels), VALIDATION)
        return Splits(
            examples_of(images[~validates], labels[~validates]),
            examples_of(images[validates], labels[validates]),
            examples_of(test_images, test_labels),
        )

    def missing(self, root: Path | None = None) -> str | None:
        """Why the set is not here and how to get it; None if `self(root)` will find or download it."""
        return None if self._folder(root) or _may_download() else self._where_and_how(root)

    def _places(self, root: Path | None) -> list[Path]:
        import pooch

        cache = Path(pooch.os_cache("sparsebench")) / self.name
        return [cache] if root is None else [root / self.name, cache]

    def _folder(self, root: Path | None) -> Path | None:
        for folder in self._places(root):
            if all((folder / name).is_file() for name in self.digests):
                return folder
        return None

    def _where_and_how(self, root: Path | None) -> str:
        home = str(Path.home())  # the sentence is kept in records, which name no user
        places = " or ".join(str(place).replace(home, "~") for place in self._places(root))
        return (
            f"{self.name} is not in {places}; set SPARSEBENCH_DATA to a folder that holds {self.name}/"
            f"{PARTS[0][0]} and its three companions, or let `sparsebench run SUITE --download` fetch "
            f"{self.megabytes} MB from {self.address}"
        )

    def _download(self, root: Path | None) -> Path:
        if not _may_download():
            raise DatasetMissing(self._where_and_how(root))
        import pooch

        folder = self._places(root)[-1]
        pooch.get_logger().setLevel("WARNING")  # what it logs goes to stderr, in the middle of a progress bar
        for name, digest in self.digests.items():
            try:
                pooch.retrieve(self.address + name, known_hash=digest, fname=name, path=folder)
            except (
                OSError,
                ValueError,
            ) as error:  # requests' errors are OSErrors; a wrong digest is a ValueError
                reason = str(error).splitlines()[0]
                raise DatasetMissing(f"{self.name}: {self.address}{name} could not be fetched: {reason}") from error
        return folder

    def _read(self, folder: Path, images_name: str, labels_name: str) -> tuple:
        images, labels = (
            read_idx(folder / images_name, dimensions=3),
            read_idx(folder / labels_name, dimensions=1),
        )
        if len(images) != len(labels):
            raise DatasetCorrupt(f"{folder / labels_name}: {len(labels)} labels for {len(images)} images")
        return images, labels


def _may_download() -> bool:
    return os.environ.get("SPARSEBENCH_DOWNLOAD") == "1"


# The digests of MNIST are SHA-256 of the original files; for Fashion-MNIST its authors publish MD5.
mnist = IdxDataset(
    "mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    12,
    {
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
)
fashion_mnist = IdxDataset(
    "fashion-mnist",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    31,
    {
        "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
    },
)
