"""Sends the events of a container to Headwater: for Azure Functions, with an Event Grid trigger.

Runtime: Python 3.11 or newer; save it as __init__.py beside a function.json that holds
{"bindings": [{"type": "eventGridTrigger", "name": "event", "direction": "in"}]}. Application setting: HEADWATER_HOOK,
the address that `headwater events on DRIVER` shows.

What Headwater refuses raises, so that Event Grid tries again.
"""

import json
import os
import urllib.request
from typing import Any


def main(event: Any) -> None:
    told = {
        "id": event.id,
        "topic": event.topic,
        "subject": event.subject,
        "eventType": event.event_type,
        "eventTime": event.event_time.isoformat(),
        "data": event.get_json(),
        "dataVersion": event.data_version,
    }
    request = urllib.request.Request(
        os.environ["HEADWATER_HOOK"],
        data=json.dumps([told]).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=20):
        pass
