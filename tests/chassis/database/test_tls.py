"""A database that wants TLS, with a certificate of an authority of our own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import OperationalError

from chassis.database.engines import create_engine, reason_of
from chassis.database.settings import DatabaseSettings
from chassis.development.private_servers import Server, private_mariadb
from tests.certificates import make_certificates
from tests.conftest import VAR, execute


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def mariadb(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with private_mariadb(tmp_path_factory.mktemp("mariadb"), VAR) as server:
        if "Docker" in server.source:
            pytest.skip("a container does not see the certificates")
        server.stop()
        files = {"ssl-cert": "server.pem", "ssl-key": "server.key", "ssl-ca": "ca.pem"}
        options = [f"--{name}={certificates / file}" for name, file in files.items()]
        server.command = [*server.command, *options]
        server.start()
        yield server


async def cipher(server: Server, authority: Path | None) -> str:
    """Of a connection of an account that may come with TLS only."""
    url = make_url(server.url)
    await execute(url, "CREATE OR REPLACE USER secure@localhost REQUIRE SSL")
    await execute(url, f"GRANT ALL ON {url.database}.* TO secure@localhost")
    url = url.set(username="secure")
    if authority is not None:
        url = url.update_query_dict({"ssl_ca": str(authority)})
    settings = DatabaseSettings(url=url.render_as_string(hide_password=False))
    engine = create_engine(settings, "read")
    try:
        async with engine.connect() as connection:
            status = await connection.execute(text("SHOW STATUS LIKE 'Ssl_cipher'"))
            return f"{status.one()[1]}"
    finally:
        await engine.dispose()


async def test_ssl_ca_in_the_url_makes_connections_that_are_encrypted_and_verified(
    mariadb: Server, certificates: Path
):
    assert (await cipher(mariadb, certificates / "ca.pem")).startswith("TLS_")

    with pytest.raises(OperationalError) as unverified:
        await cipher(mariadb, certificates / "other.pem")
    assert "certificate verify failed" in reason_of(unverified.value)
    with pytest.raises(OperationalError) as plain:
        await cipher(mariadb, None)
    assert reason_of(plain.value).startswith("Access denied for user 'secure'@'localhost'")
