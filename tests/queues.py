"""Queues of a test's own, at moto and at Azurite, spoken to by clients that are not ours."""

import base64
import json
import secrets
from dataclasses import dataclass
from typing import Any

import boto3
import requests
from botocore.config import Config

from headwater.storage.azure.signing import AccountKey, signed_at
from headwater.storage.requests import Request
from tests.servers import REGION, AzureServer, S3Server


def aws(server: S3Server, service: str, region: str = REGION) -> Any:
    return boto3.client(
        service,
        endpoint_url=server.endpoint,
        region_name=region,
        aws_access_key_id=server.admin.access_key_id,
        aws_secret_access_key=server.admin.secret_access_key,
        config=Config(proxies={}),
    )


@dataclass(frozen=True, slots=True)
class Sqs:
    url: str
    arn: str
    client: Any

    def put(self, body: str) -> None:
        self.client.send_message(QueueUrl=self.url, MessageBody=body)

    def left(self) -> int:
        """Messages that are still there, hidden ones included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        told = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return sum(int(told[name]) for name in names)

    def show_again(self) -> None:
        """What was received and not deleted may be received again, from now on without waiting."""
        self.client.set_queue_attributes(QueueUrl=self.url, Attributes={"VisibilityTimeout": "0"})


def new_sqs(server: S3Server, **attributes: str) -> Sqs:
    client = aws(server, "sqs")
    url = client.create_queue(QueueName=f"events-{secrets.token_hex(6)}", Attributes=attributes)["QueueUrl"]
    found = client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return Sqs(url, found["Attributes"]["QueueArn"], client)


@dataclass(frozen=True, slots=True)
class AzuriteQueue:
    name: str
    server: AzureServer

    def _send(self, method: str, path: str = "", query: dict[str, str] | None = None, body: bytes = b"") -> bytes:
        url = f"{self.server.endpoint}/{self.server.account}/{self.name}{path}"
        if query:
            url += "?" + "&".join(f"{name}={value}" for name, value in query.items())
        asked = Request("of the test", method, None, query or {}, {}, body)
        signed, headers = signed_at(url, self.server.account, asked, AccountKey(self.server.key))
        session = requests.Session()
        session.trust_env = False
        answer = session.request(method, signed, headers=headers, data=body)
        assert answer.ok, answer.text
        return answer.content

    def make(self) -> None:
        self._send("PUT")

    def put(self, body: str, *, is_encoded: bool = True) -> None:
        """As Event Grid puts it: in base64."""
        text = (
            base64.b64encode(body.encode()).decode() if is_encoded else body.replace("&", "&amp;").replace("<", "&lt;")
        )
        self._send("POST", "/messages", body=f"<QueueMessage><MessageText>{text}</MessageText></QueueMessage>".encode())

    def left(self) -> int:
        session = requests.Session()
        session.trust_env = False
        url = f"{self.server.endpoint}/{self.server.account}/{self.name}?comp=metadata"
        asked = Request("of the test", "GET", None, {"comp": "metadata"})
        signed, headers = signed_at(url, self.server.account, asked, AccountKey(self.server.key))
        return int(session.get(signed, headers=headers).headers["x-ms-approximate-messages-count"])


def new_azurite_queue(server: AzureServer) -> AzuriteQueue:
    queue = AzuriteQueue(f"events-{secrets.token_hex(6)}", server)
    queue.make()
    return queue


def s3_event(bucket: str, key: str, name: str = "ObjectCreated:Put") -> str:
    thing = {"key": key, "size": 3, "eTag": "abc", "sequencer": "0A"}
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": REGION,
        "eventTime": "2026-11-22T22:00:00.000Z",
        "eventName": name,
        "s3": {"s3SchemaVersion": "1.0", "bucket": {"name": bucket}, "object": thing},
    }
    return json.dumps({"Records": [record]})
