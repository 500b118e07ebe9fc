"""How long a request's body may be: what is not an upload is kept in memory, so it has an end."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 32 * 1024 * 1024


class BodyLimit:
    """Refuses, as it is read, a body longer than `MOST_BYTES`; uploads are streamed, their fields counted there."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_upload(scope):
            await self._app(scope, receive, send)
            return
        received_bytes = 0

        async def counted() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > MOST_BYTES:
                raise HTTPException(400, f"The body is longer than {MOST_BYTES} bytes. Send less at once.")
            return message

        await self._app(scope, counted, send)


def _is_upload(scope: Scope) -> bool:
    if scope["path"].endswith("/imports/csv"):
        return True
    content_type = dict(scope["headers"]).get(b"content-type", b"").lower()
    if content_type.startswith(b"application/offset+octet-stream"):  # of tus, which reads nothing of any other route
        return "/tus" in scope["path"]
    return content_type.startswith(b"multipart/form-data") and scope["path"].endswith(("/items", "/uploads/batch"))
