"""A token service as the registry's documentation describes it: signs what a user may do, also too late."""

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import jwt
import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

SERVICE, ISSUER = "the-registry", "the-token-service"


@dataclass(frozen=True, slots=True)
class User:
    password: str
    may_read: frozenset[str] = frozenset()  # repositories; "*" is the catalog
    life_s: int = 3600


@dataclass(slots=True)
class TokenService:
    users: dict[str, User]
    url: str = ""
    certificate: Path = Path()
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    given: list[str] = field(default_factory=list)  # scopes asked for

    @property
    def options(self) -> dict[str, str]:
        """The registry's own."""
        return {"realm": self.url, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(self.certificate)}

    def answer(self, query: str, authorization: str) -> tuple[int, bytes]:
        name, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        user = self.users.get(name)
        if user is None or user.password != password:
            return 401, b'{"details": "wrong, and here is your password again"}'
        asked = parse_qs(query)
        scopes = asked.get("scope", [])
        self.given += scopes
        access = []
        for scope in scopes:
            kind, resource, actions = scope.split(":")
            if resource in user.may_read or (kind == "registry" and "*" in user.may_read):
                access.append({"type": kind, "name": resource, "actions": actions.split(",")})
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": name, "aud": asked["service"][0], "nbf": now - 86_400, "iat": now - 86_400}
        claims |= {"exp": now + user.life_s, "jti": str(len(self.given)), "access": access}
        certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        chain = [base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()]
        return 200, orjson.dumps({"token": jwt.encode(claims, self.key, "ES256", {"x5c": chain})})


@contextmanager
def token_service(directory: Path, users: dict[str, User]) -> Iterator[TokenService]:
    directory.mkdir(parents=True, exist_ok=True)
    service = TokenService(users)
    service.certificate = write_certificate(directory, service.key)["certificate"]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = service.answer(urlsplit(self.path).query, self.headers.get("Authorization", ""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_port}/token"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def write_certificate(directory: Path, key: ec.EllipticCurvePrivateKey) -> dict[str, Path]:
    """Self-signed, and its key; as the registry's `http.tls` names them."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "headwater.test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    written = {"certificate": directory / "certificate.pem", "key": directory / "key.pem"}
    written["certificate"].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    written["key"].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return written
