"""Server-sent events."""

from typing import Any

import orjson


def server_sent_event(name: str, data: Any) -> str:
    """One event with its data as one line of JSON."""
    return f"event: {name}\ndata: {orjson.dumps(data).decode()}\n\n"
