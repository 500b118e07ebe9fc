from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from headwater.net.addresses import read_inner_host
from headwater.net.fetch import Fetcher
from tests.net.origin import Origin, ScriptedDns, Watch, serving


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with serving() as running:
        yield running


@pytest.fixture
async def watch() -> AsyncIterator[Watch]:
    async with Watch().listening() as watching:
        yield watching


@pytest.fixture
def dns() -> ScriptedDns:
    return ScriptedDns({"images.example.com": [["127.0.0.1"]]})


@pytest.fixture
async def fetcher(origin: Origin, dns: ScriptedDns) -> AsyncIterator[Fetcher]:
    """It may reach the origin, and nothing else that is inner."""
    made = Fetcher(inner_hosts=[read_inner_host(f"127.0.0.1:{origin.port}")], resolver=dns)
    yield made
    await made.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Files of a certificate that signed itself, for images.example.com, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "images.example.com")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("images.example.com")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificate")
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(folder / "certificate.pem"), str(folder / "key.pem")
