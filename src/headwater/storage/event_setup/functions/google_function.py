"""Sends the events of a bucket to Headwater: for Cloud Run functions, with Cloud Storage (Eventarc) as trigger.

Runtime: Python 3.11 or newer. Entry point: handler. Environment: HEADWATER_HOOK, the address that
`headwater events on DRIVER` shows. One trigger for google.cloud.storage.object.v1.finalized, one for …deleted.

What Headwater refuses is answered with an error, so that Eventarc tries again.
"""

import json
import os
import urllib.parse
import urllib.request
from typing import Any

_NAMES = {"finalized": "ObjectCreated:Put", "deleted": "ObjectRemoved:Delete", "archived": "ObjectRemoved:Delete"}


def handler(request: Any) -> tuple[str, int]:
    kind = request.headers.get("ce-type", "").rpartition(".")[2]
    if kind not in _NAMES:
        return "ignored", 200
    thing = request.get_json()
    found = {"key": urllib.parse.quote_plus(thing["name"])}  # Headwater looks at the object itself
    record = {"eventName": _NAMES[kind], "s3": {"bucket": {"name": thing["bucket"]}, "object": found}}
    forwarded = urllib.request.Request(
        os.environ["HEADWATER_HOOK"],
        data=json.dumps({"Records": [record]}).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(forwarded, timeout=20) as answer:
        return "sent", answer.status
