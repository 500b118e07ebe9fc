"""Sends the events of a bucket to Headwater: for AWS Lambda, with S3 as its trigger.

Runtime: Python 3.11 or newer. Handler: FILE.handler. Environment: HEADWATER_HOOK, the address that
`headwater events on DRIVER` shows. The function's role needs no rights but those to write its log.

What Headwater refuses raises, so that Lambda tries again; set a dead-letter queue to keep what fails for good.
"""

import json
import os
import urllib.request
from typing import Any


def handler(event: dict[str, Any], _context: object) -> dict[str, int]:
    request = urllib.request.Request(
        os.environ["HEADWATER_HOOK"],
        data=json.dumps(event).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return {"statusCode": answer.status}
