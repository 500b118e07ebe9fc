"""A bucket of a test's own, spoken to by a client that is not ours."""

import secrets
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config

from tests.servers import REGION, S3Server


@dataclass(frozen=True, slots=True)
class Bucket:
    name: str
    server: S3Server
    client: Any

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def get(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)

    def keys(self) -> set[str]:
        """Without what Headwater keeps in its hidden folder."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        listed = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {key for key in listed if not key.startswith(".dataloop/")}

    @property
    def access(self) -> dict[str, str]:
        """What a script has to be told."""
        admin = self.server.admin
        return {
            "endpoint": self.server.endpoint,
            "bucket": self.name,
            "key": admin.access_key_id,
            "secret": admin.secret_access_key,
        }


def new_bucket(server: S3Server) -> Bucket:
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name=REGION,
        aws_access_key_id=server.admin.access_key_id,
        aws_secret_access_key=server.admin.secret_access_key,
        config=Config(proxies={}, s3={"addressing_style": "path"}, retries={"mode": "standard"}),
    )
    bucket = Bucket(f"test-{secrets.token_hex(6)}", server, client)
    client.create_bucket(Bucket=bucket.name)
    return bucket
