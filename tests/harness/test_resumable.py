"""What the head of a run says of it, and that nothing is added to a run that began with something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from sparsebench.errors import RunError
from sparsebench.harness.plan import Plan
from sparsebench.harness.runner import check_resumable, new_folder, new_info
from sparsebench.plugin import PluginInfo
from sparsebench.registry import Registry

CASE = '[[kernel]]\nname = "wide"\nop = "linear"\nout_features = 8\nin_features = 6\nsparsity = [0.8, 0.9]\n'


@pytest.fixture
def plan(planned: Callable[..., Plan]) -> Plan:
    return planned(CASE)


def test_the_head_of_a_run_says_what_it_was(plan: Plan, registry: Registry) -> None:
    info = new_info(plan, registry, {"selection": {"quick": False}})
    assert info.suite["sha256"] == plan.suite.sha256
    assert info.suite["text"] == plan.suite.text
    assert [cell.case for cell in info.cells] == ["wide"] * 2
    assert "OMP_NUM_THREADS" in info.environment["1 threads"]
    assert info.code
    assert info.host["fingerprint"]
    assert new_info(plan, registry, {}).id != info.id
    assert new_folder(info).name.startswith("mine-2")
    assert new_folder(info).name.endswith(f"Z-{info.id}")
    assert msgspec.json.decode(msgspec.json.encode(info), type=type(info)) == info


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"suite": {"name": "mine", "sha256": "other"}}, "the suite"),
        ({"plugins": [PluginInfo(name="/tmp/mine.py", sha256="other")]}, "the plugins"),
        ({"code": "other"}, "sparsebench's own code"),
        ({"host": {"fingerprint": {"cpu": "other"}}}, "this machine's fingerprint"),
        ({"options": {"selection": {"quick": True}}}, "the selection"),
    ],
)
def test_what_changed_is_named_and_not_mixed(
    plan: Plan, registry: Registry, changes: dict[str, Any], named: str
) -> None:
    old = new_info(plan, registry, {"selection": {"quick": False}})
    same = new_info(plan, registry, {"selection": {"quick": False}})
    check_resumable(old, same)
    with pytest.raises(RunError) as error:
        check_resumable(old, msgspec.structs.replace(same, **changes))
    assert str(error.value) == f"cannot resume run {old.id}: {named} changed since it began; start a new run"
    assert error.value.exit_code == 2


def test_all_that_changed_is_named(plan: Plan, registry: Registry) -> None:
    old = new_info(plan, registry, {})
    new = msgspec.structs.replace(old, code="other", options={"other": 1})
    with pytest.raises(RunError, match="sparsebench's own code and the selection changed"):
        check_resumable(old, new)


def test_the_hash_of_the_code_survives_json(plan: Plan, registry: Registry) -> None:
    old = new_info(plan, registry, {"selection": {"backends": [], "shard": [1, 1]}})
    check_resumable(msgspec.json.decode(msgspec.json.encode(old), type=type(old)), old)
