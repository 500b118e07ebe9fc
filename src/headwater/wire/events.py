"""Server-sent events."""

from typing import Any

import orjson


def server_sent_event(name: str, data: Any, *, event_id: str | None = None) -> str:
    """One event with its data as one line of JSON. Clients that come back say the last `event_id` they had."""
    number = "" if event_id is None else f"id: {event_id}\n"
    return f"event: {name}\ndata: {orjson.dumps(data).decode()}\n{number}\n"
