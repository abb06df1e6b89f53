import os
from pathlib import Path

import pytest

from chassis.settings.cpus import available_cpus

ALL = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("limit", "cpus"),
    [
        ("max 100000", ALL),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("250000 100000", min(2, ALL)),
        ("100000000 100000", ALL),
    ],
)
def test_quota_of_cgroup_v2(tmp_path: Path, limit: str, cpus: int):
    (tmp_path / "cpu.max").write_text(f"{limit}\n")

    assert available_cpus(tmp_path) == cpus


@pytest.mark.parametrize(
    ("quota", "cpus"), [("-1", ALL), ("150000", 1), ("50000", 1), ("250000", min(2, ALL))]
)
def test_quota_of_cgroup_v1(tmp_path: Path, quota: str, cpus: int):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")

    assert available_cpus(tmp_path) == cpus


def test_without_a_quota_all_cpus_of_the_process_count(tmp_path: Path):
    assert available_cpus(tmp_path) == ALL
