"""A database that wants TLS, with a certificate of an authority of our own."""

import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import make_url, text
from sqlalchemy.exc import OperationalError

from chassis.database.engines import create_engine, reason_of
from chassis.database.settings import DatabaseSettings
from chassis.development.private_servers import Server, private_mariadb
from tests.conftest import VAR, execute


def sign(
    name: str, key: ec.EllipticCurvePrivateKey, by: str, with_key: ec.EllipticCurvePrivateKey
) -> bytes:
    start = datetime.now(UTC) - timedelta(days=1)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, by)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca=name == by, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    ).sign(with_key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    ours, server, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    (folder / "ca.pem").write_bytes(sign("ours", ours, "ours", ours))
    (folder / "other.pem").write_bytes(sign("other", other, "other", other))
    (folder / "server.pem").write_bytes(sign("server", server, "ours", ours))
    (folder / "server.key").write_bytes(
        server.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder


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
