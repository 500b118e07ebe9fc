"""The client: one server, one token, and the server's errors as sentences."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from headwater.cli.environment import ClientEnvironment
from headwater.cli.server_file import read_server_file
from headwater.errors import BadRequest, Conflict, Forbidden, HeadwaterError, NotFound, Unauthorized, Unavailable
from headwater.keyfiles import read_or_make
from headwater.settings import Settings
from headwater.tokens import Signer

_TIMEOUT_S = 60.0  # a driver is made after one listing of its bucket
_LONG_ANSWER_S = 600.0  # a long file is looked through before it is answered
_FIRST_ACCOUNT_ID = 1
_ERRORS = {error.status: error for error in (BadRequest, Unauthorized, Forbidden, NotFound, Conflict, Unavailable)}


class Client:
    def __init__(self, url: str, token: str, *, start_hint: str, renew: Callable[[], str] | None = None) -> None:
        """`start_hint` says what to do when nobody answers; `renew` gives a fresh token, where there is a way."""
        self.url = url.rstrip("/")
        self.token = token
        self.renew = renew
        self._start_hint = start_hint
        self._http = httpx.Client(
            base_url=f"{self.url}/api/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=_TIMEOUT_S,
            trust_env=not _is_here(self.url),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **params: str | list[str]) -> Any:
        return self._ask("GET", path, params=params)

    def post(self, path: str, body: Any = None, *, form: dict[str, str] | None = None) -> Any:
        return self._ask("POST", path, json=body, data=form)

    def put(self, path: str, body: Any) -> Any:
        return self._ask("PUT", path, json=body)

    def patch(self, path: str, body: Any) -> Any:
        return self._ask("PATCH", path, json=body)

    def delete(self, path: str) -> Any:
        return self._ask("DELETE", path)

    def send(self, path: str, content: Iterator[bytes], *, content_type: str, **params: str) -> Any:
        """A body that is read while it is sent. Raises HeadwaterError with the server's own sentence."""
        headers = {"Content-Type": content_type}
        with self._translated():
            answer = self._http.post(path, content=content, params=params, headers=headers, timeout=_LONG_ANSWER_S)
        _raise_for(answer)
        return answer.json()

    @contextmanager
    def chunks(self, path: str) -> Generator[Iterator[bytes]]:
        """An answer as it comes. Raises HeadwaterError, Unavailable when it breaks off."""
        with self._translated(), self._http.stream("GET", path) as answer:
            if answer.is_error:
                answer.read()
            _raise_for(answer)
            yield answer.iter_bytes()

    def _ask(self, method: str, path: str, **parts: Any) -> Any:
        """Raises HeadwaterError with the server's own sentence."""
        with self._translated():
            answer = self._http.request(method, path, **parts)
        _raise_for(answer)
        return answer.json()

    @contextmanager
    def lines(
        self, path: str, *, silent_for_s: float, headers: dict[str, str] | None = None, **params: str
    ) -> Generator[Iterator[str]]:
        """A streamed answer, line by line. Raises Unavailable when it breaks off or is silent for too long."""
        timeout = httpx.Timeout(_TIMEOUT_S, read=silent_for_s)
        with (
            self._translated(),
            self._http.stream("GET", path, params=params, headers=headers, timeout=timeout) as answer,
        ):
            if answer.is_error:
                answer.read()
            _raise_for(answer)
            yield answer.iter_lines()

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except httpx.ConnectError:
            raise Unavailable(f"No Headwater server answers at {self.url}. {self._start_hint}") from None
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL):
            raise BadRequest(
                f"{self.url!r} is not the URL of a server, which is like http://HOST:PORT, or the token is none."
            ) from None
        except httpx.TransportError as error:
            raise Unavailable(f"The server at {self.url} did not answer ({type(error).__name__}). Try again.") from None


def _raise_for(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    try:
        message = str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        message = f"{answer.request.url.host} answered {answer.status_code}. Is it a Headwater server?"
    raise _ERRORS.get(answer.status_code, HeadwaterError)(message)


def _is_here(url: str) -> bool:
    """No proxy stands between us and our own machine."""
    return httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")


def connect(data_dir: Path | None) -> Client:
    """To the server on a data directory, as its operator; or to HEADWATER_URL, with HEADWATER_TOKEN.

    A data directory that is named on the command line counts most. Raises HeadwaterError.
    """
    environment = ClientEnvironment()
    if data_dir is None and environment.url is not None:
        if environment.token is None:
            raise BadRequest(
                "HEADWATER_URL is set, but HEADWATER_TOKEN is not. Print a token on the server's machine: "
                "headwater token --email YOU"
            )
        token = environment.token.get_secret_value()
        return Client(environment.url, token, start_hint="Check HEADWATER_URL.")
    settings = Settings() if data_dir is None else Settings(data_dir=data_dir)
    url = read_server_file(settings.data_dir)
    hint = f"Start it: headwater serve --data-dir {settings.data_dir}"
    if url is None:
        raise Unavailable(f"No Headwater server runs on {settings.data_dir}. {hint}")
    return connect_as_operator(settings, url, start_hint=hint)


def connect_as_operator(settings: Settings, url: str, *, start_hint: str) -> Client:
    """With the right of who can read the signing key: the owner's.

    The owner is the first account that was made, unless the database was used before. Looking that up in the database
    takes seconds; asking the server with the first account's token takes none.
    """
    key = settings.signing_key.get_secret_value() if settings.signing_key else _read_key(settings.data_dir)

    def sign() -> str:
        return Signer(key).sign(account_id=_FIRST_ACCOUNT_ID, email=settings.admin_email)

    client = Client(url, sign(), start_hint=start_hint, renew=sign)
    try:
        if any("operator" in organization["roles"] for organization in client.get("/orgs")):
            return client
    except Unauthorized:
        pass
    from headwater.installation import token_for  # noqa: PLC0415 - brings the whole server along, seldom needed

    return Client(url, token_for(settings, None), start_hint=start_hint, renew=lambda: token_for(settings, None))


def _read_key(data_dir: Path) -> str:
    """Made here when the server is just about to make it. Raises Forbidden."""
    try:
        return read_or_make(data_dir / "signing-key")
    except OSError as error:
        raise Forbidden(
            f"{data_dir}/signing-key cannot be read ({error.strerror}), so you are not this server's operator. Set "
            "HEADWATER_URL and HEADWATER_TOKEN instead."
        ) from None
