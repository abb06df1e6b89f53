"""Where a private server cannot be started, one line each says what was tried."""

from pathlib import Path

import pytest

from chassis.development.private_servers import ServerUnavailable, private_mariadb


def test_system_without_mariadb_docker_and_debian_packages_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[str] = []

    with (
        pytest.raises(ServerUnavailable) as caught,
        private_mariadb(tmp_path / "data", tmp_path / "cache", say=said.append),
    ):
        pass

    assert [line.partition(":")[0] for line in said] == [
        "mariadbd on the PATH",
        "Docker",
        "Debian packages",
    ]
    assert "Debian packages: only on Debian and Ubuntu; this is " in said[-1]
    assert "Set DATABASE_URL" in str(caught.value)
    assert "None" not in str(caught.value)
