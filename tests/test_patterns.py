"""Generated weights have exactly the non-zeros that the problem says, where the pattern says, and always the same."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsebench.errors import DatasetMissing, ProblemError
from sparsebench.patterns import find_smtx, make_bias, make_grad_output, make_input, make_weight, read_smtx
from sparsebench.problem import Problem
from sparsebench.weight import from_csr

CONV = Problem(op="conv2d", out_features=12, in_features=8, groups=2, kernel_size=(3, 2), batch=2, height=5, width=6)


def linear(**change: object) -> Problem:
    return Problem(**{"op": "linear", "out_features": 64, "in_features": 96, "batch": 4, **change})  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    sparsity=st.floats(0, 0.999),
    pattern=st.sampled_from(["uniform", "row-skewed"]),
    seed=st.integers(0, 5),
)
def test_exact_count_in_canonical_order(rows: int, columns: int, sparsity: float, pattern: str, seed: int) -> None:
    problem = Problem(op="linear", out_features=rows, in_features=columns, sparsity=sparsity, pattern=pattern)
    weight = make_weight(problem, seed)
    assert weight.nnz == round((1 - sparsity) * rows * columns)
    assert torch.equal(from_csr(weight.shape, weight.indptr, weight.indices, weight.values).mask(), weight.mask())


def test_conv2d_weight_has_torchs_shape() -> None:
    weight = make_weight(CONV)
    assert weight.shape == (12, 4, 3, 2)
    assert weight.nnz == round(0.1 * 12 * 24)


def test_row_skewed_is_skewed_and_uniform_is_not() -> None:
    def spread(pattern: str) -> float:
        counts = make_weight(linear(out_features=256, in_features=512, pattern=pattern)).indptr.diff().double()
        return float(counts.std() / counts.mean())

    assert spread("uniform") < 0.2
    assert spread("row-skewed") > 0.6


def test_blocks_are_whole_and_count_to_the_nearest_block() -> None:
    weight = make_weight(linear(in_features=96, pattern="block:8", sparsity=0.9))
    blocks = weight.mask().reshape(64, 12, 8).sum(2)
    assert set(blocks.unique().tolist()) == {0, 8}
    assert abs(weight.nnz - round(0.1 * 64 * 96)) <= 4


def test_the_last_block_of_a_row_may_be_shorter() -> None:
    mask = make_weight(linear(in_features=10, pattern="block:4", sparsity=0.5)).mask()
    assert set(mask[:, 8:].sum(1).tolist()) == {0, 2}
    assert abs(int(mask.sum()) - 320) <= 16
    assert make_weight(linear(in_features=10, pattern="block:4", sparsity=0.0)).nnz == 640


@pytest.mark.parametrize(("keep", "group"), [(2, 4), (1, 4), (1, 2)])
def test_nm_keeps_n_of_every_m_input_channels(keep: int, group: int) -> None:
    pattern, sparsity = f"nm:{keep}:{group}", 1 - keep / group
    mask = make_weight(linear(pattern=pattern, sparsity=sparsity)).mask()
    assert set(mask.reshape(64, -1, group).sum(2).unique().tolist()) == {keep}
    conv = Problem(op="conv2d", out_features=6, in_features=8, kernel_size=(3, 3), height=5, width=5,
                   pattern=pattern, sparsity=sparsity)  # fmt: skip
    kept = make_weight(conv).mask().unflatten(1, (-1, group)).sum(2)
    assert set(kept.unique().tolist()) == {keep}


def test_seeds_and_streams_differ_and_repeat() -> None:
    problem = linear(in_features=64, batch=64, bias=True)
    assert torch.equal(make_input(problem, 1), make_input(problem, 1))
    assert not torch.equal(make_input(problem, 1), make_input(problem, 2))
    assert not torch.equal(make_input(problem), make_grad_output(problem))
    assert torch.equal(make_weight(problem, 3).values, make_weight(problem, 3).values)
    assert not torch.equal(make_weight(problem, 3).indices, make_weight(problem, 4).indices)
    assert make_bias(linear()) is None


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    make_weight(linear())
    make_input(linear())
    assert torch.equal(torch.get_rng_state(), before)


def test_outputs_are_of_order_one() -> None:
    problem = linear(in_features=512, batch=64)
    output = make_input(problem) @ make_weight(problem).to_dense().T
    assert 0.5 < float(output.std()) < 2


SMTX = "3, 5, 4\n0 2 2 4 \n4 1 0 3 \n"


def test_a_dlmc_file_is_read_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "dlmc" / "rn50" / "magnitude_pruning" / "0.9"
    folder.mkdir(parents=True)
    (folder / "layer.smtx").write_text(SMTX)
    monkeypatch.setenv("SPARSEBENCH_DATA", str(tmp_path))
    for name in ("layer.smtx", "rn50/magnitude_pruning/0.9/layer.smtx", str(folder / "layer.smtx")):
        weight = make_weight(linear(out_features=3, in_features=5, pattern=f"file:{name}", sparsity=0.733))
        assert weight.indptr.tolist() == [0, 2, 2, 4]
        assert weight.indices.tolist() == [1, 4, 0, 3]


def test_a_dlmc_file_of_another_sparsity_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "layer.smtx"
    path.write_text(SMTX)
    problem = linear(out_features=3, in_features=5, pattern=f"file:{path}", sparsity=0.74)
    with pytest.raises(ProblemError, match=r"sparsity must be 0\.7333 for .*layer\.smtx, not 0\.74"):
        make_weight(problem)


def test_a_missing_dlmc_file_says_where_it_belongs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEBENCH_DATA", str(tmp_path))
    with pytest.raises(DatasetMissing, match=r"SPARSEBENCH_DATA/dlmc"):
        find_smtx("layer.smtx")
    monkeypatch.delenv("SPARSEBENCH_DATA")
    with pytest.raises(DatasetMissing):
        find_smtx("layer.smtx")


def test_a_name_of_two_dlmc_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("a", "b"):
        (tmp_path / "dlmc" / part).mkdir(parents=True)
        (tmp_path / "dlmc" / part / "layer.smtx").write_text(SMTX)
    monkeypatch.setenv("SPARSEBENCH_DATA", str(tmp_path))
    with pytest.raises(ProblemError, match="2 files"):
        find_smtx("layer.smtx")
    assert find_smtx("a/layer.smtx").parent.name == "a"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3, 5\n0\n0\n",
        "three, 5, 4\n",
        "3, 5, 4\n0 2 2 4\n4 1 0\n",
        "3, 5, 4\n0 2 4\n4 1 0 3\n",
        "3, 6, 4\n0 2 2 4\n4 1 0 3\n",
        "3, 5, 4\n0 2 2 4\n4 1 0 5\n",
        "3, 5, 4\n0 2 2 4\n4 1 -1 3\n",
        "3, 5, 4\n0 3 2 4\n4 1 0 3\n",
        "3, 5, 4\n1 2 2 4\n4 1 0 3\n",
        "3, 5, 4\n0 2 2 4\n4 4 0 3\n",
        f"3, 5, 4\n0 2 2 4\n4 1 0 {2**63}\n",
        f"3, 5, 4\n0 2 2 {2**80}\n4 1 0 3\n",
        f"3, 5, 4\n0 2 2 4\n4 1 0 {2**32}\n",
        "\xff",
    ],
)
def test_a_broken_dlmc_file_is_a_problem_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.smtx"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ProblemError, match=r"broken\.smtx"):
        read_smtx(path, (3, 5))
