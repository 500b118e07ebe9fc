"""Google's token endpoints for tests, on this machine: they verify assertions and tell what they were asked."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

EMAIL = "reader@a-project.iam.gserviceaccount.com"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


@cache
def private_key(name: str = "reader") -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


def key_file(*, token_uri: str = "https://oauth2.googleapis.com/token", key: RSAPrivateKey | None = None) -> str:
    """The JSON that Google's console gives for a service account."""
    pem = (key or private_key()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "a-project",
            "private_key_id": "key-1",
            "private_key": pem.decode(),
            "client_email": EMAIL,
            "client_id": "1234567890",
            "token_uri": token_uri,
        }
    )


@dataclass
class Asked:
    path: str
    headers: dict[str, str]
    form: dict[str, Any]


Answer = tuple[int, dict[str, Any]]


@dataclass
class GoogleTokens:
    """Lends tokens; `script` takes precedence, one answer after another."""

    url: str = ""
    life_s: int = 3600
    accounts: dict[str, RSAPrivateKey] = field(default_factory=lambda: {EMAIL: private_key()})
    asked: list[Asked] = field(default_factory=list)
    script: list[Answer | str] = field(default_factory=list)
    now_s: Callable[[], float] | None = None
    before: Callable[[], None] = lambda: None

    @property
    def token_uri(self) -> str:
        return f"{self.url}/token"

    @property
    def lent(self) -> int:
        return len(self.asked)

    def answer(self, asked: Asked) -> Answer | str:
        self.asked.append(asked)
        self.before()
        if self.script:
            return self.script.pop(0)
        if asked.path == "/token":
            return self._lend_for_assertion(asked.form)
        if asked.path == "/v1/token":
            return 200, {"access_token": f"federated-{self.lent}", "expires_in": self.life_s, "token_type": "Bearer"}
        if asked.path.endswith(":generateAccessToken"):
            return 200, {"accessToken": f"impersonated-{self.lent}", "expireTime": "2099-01-01T00:00:00Z"}
        return 200, {"access_token": f"subject-{self.lent}", "expires_in": self.life_s}

    def _lend_for_assertion(self, form: dict[str, Any]) -> Answer:
        """What Google's own endpoint says of an account, a signature or a time that is wrong."""

        def refuse(description: str) -> Answer:
            return 400, {"error": "invalid_grant", "error_description": description}

        if form.get("grant_type") != JWT_BEARER:
            return 400, {"error": "unsupported_grant_type"}
        claims = jwt.decode(form["assertion"], options={"verify_signature": False})
        if claims["iss"] not in self.accounts:
            return refuse("Invalid grant: account not found")
        try:
            jwt.decode(
                form["assertion"],
                self.accounts[claims["iss"]].public_key(),
                algorithms=["RS256"],
                audience=self.token_uri,
                options={"require": ["iat", "exp", "scope"]},
            )
        except jwt.InvalidSignatureError:
            return refuse("Invalid JWT Signature.")
        except (jwt.ExpiredSignatureError, jwt.ImmatureSignatureError):
            return refuse(
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "
                "Check your iat and exp values in the JWT claim."
            )
        return 200, {"access_token": f"token-{self.lent}", "expires_in": self.life_s, "token_type": "Bearer"}


@contextmanager
def google_tokens() -> Iterator[GoogleTokens]:
    """Serves on a thread until the context ends."""
    tokens = GoogleTokens()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self._serve()

        def do_GET(self) -> None:
            self._serve()

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            is_json = "json" in self.headers.get("Content-Type", "")
            form = json.loads(body) if is_json else {k: v[0] for k, v in parse_qs(body.decode()).items()}
            answer = tokens.answer(Asked(self.path, dict(self.headers.items()), form))
            status, document = (200, answer) if isinstance(answer, str) else (answer[0], json.dumps(answer[1]))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(document.encode())))
            self.end_headers()
            self.wfile.write(document.encode())

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    tokens.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield tokens
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
