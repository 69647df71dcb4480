"""MNIST: found in the user's folder or the cache, fetched only when allowed, and never half."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sparsebench.builtin.datasets._mnist import fashion_mnist, mnist
from sparsebench.errors import DatasetCorrupt, DatasetMissing


def test_reads_and_splits(mnist_root: Path) -> None:
    assert mnist.missing(mnist_root) is None
    splits = mnist(mnist_root)
    assert [tuple(part.inputs.shape) for part in splits[:3]] == [(22, 1, 4, 4), (2, 1, 4, 4), (5, 1, 4, 4)]
    shown = [[round(float(image.mean()) * 255) for image in part.inputs] for part in splits[:3]]
    assert shown == [[i for i in range(24) if i not in (11, 23)], [11, 23], list(range(5))]
    assert [part.labels.tolist() for part in splits[:3]] == [[i % 10 for i in part] for part in shown]


def test_says_where_it_looked_and_how_to_get_it(mnist_root: Path) -> None:
    with pytest.raises(DatasetMissing) as caught:
        fashion_mnist(mnist_root)
    message = str(caught.value)
    assert message == fashion_mnist.missing(mnist_root)
    for part in (str(mnist_root / "fashion-mnist"), "cache", "SPARSEBENCH_DATA", "--download", "31 MB", "https://"):
        assert part in message
    assert "\n" not in message
    assert "cache" in (mnist.missing(None) or "")


def test_one_absent_file_is_a_missing_set_and_the_cache_is_the_second_place(mnist_root: Path, tmp_path: Path) -> None:
    shutil.copytree(mnist_root / "mnist", tmp_path / "cache" / "mnist")
    (mnist_root / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    assert mnist.missing(mnist_root) is None
    (tmp_path / "cache" / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    assert mnist.missing(mnist_root) is not None


def test_labels_that_do_not_go_with_the_images_are_named(mnist_root: Path, write_idx: Callable[..., Path]) -> None:
    path = write_idx(mnist_root / "mnist" / "t10k-labels-idx1-ubyte.gz", (4,), bytes(4))
    with pytest.raises(DatasetCorrupt, match="4 labels for 5 images") as caught:
        mnist(mnist_root)
    assert str(path) in str(caught.value)


def test_downloads_only_when_allowed_and_with_a_checksum(
    mnist_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> None:
        asked.append((url, known_hash))
        Path(path).mkdir(parents=True, exist_ok=True)
        shutil.copy(mnist_root / "mnist" / fname, Path(path) / fname)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    with pytest.raises(DatasetMissing):
        fashion_mnist(mnist_root)
    assert not asked
    monkeypatch.setenv("SPARSEBENCH_DOWNLOAD", "1")
    assert fashion_mnist.missing(mnist_root) is None
    assert len(fashion_mnist(mnist_root).test.labels) == 5
    assert asked == [(fashion_mnist.address + name, digest) for name, digest in fashion_mnist.digests.items()]
    assert (tmp_path / "cache" / "fashion-mnist").is_dir()


@pytest.mark.parametrize("error", [OSError("no route to host"), ValueError("SHA256 hash does not match\nmore")])
def test_a_failed_download_is_a_missing_set(
    mnist_root: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def retrieve(url: str, **options: object) -> None:
        raise error

    monkeypatch.setattr("pooch.retrieve", retrieve)
    monkeypatch.setenv("SPARSEBENCH_DOWNLOAD", "1")
    with pytest.raises(DatasetMissing) as caught:
        fashion_mnist(mnist_root)
    assert str(error).splitlines()[0] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dataset", [mnist, fashion_mnist])
def test_every_file_has_a_digest_of_full_length(dataset: object) -> None:
    lengths = {len(digest.removeprefix("md5:")) for digest in dataset.digests.values()}  # type: ignore[attr-defined]
    assert lengths in ({64}, {32})
    assert len(set(dataset.digests.values())) == 4  # type: ignore[attr-defined]
