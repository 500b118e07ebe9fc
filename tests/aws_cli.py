"""Stands for the AWS CLI where that is not installed: runs one of its commands through boto3, from the service's model.

AWS_ENDPOINT_URL=http://127.0.0.1:5000 python aws_cli.py sqs create-queue --queue-name events --output text
"""

import json
import os
import sys
from typing import Any

import boto3
import jmespath
from botocore import xform_name
from botocore.config import Config

_OWN = ("--query", "--output")


def main(arguments: list[str]) -> None:
    service, command, *rest = arguments
    service = {"s3api": "s3"}.get(service, service)
    client = boto3.client(
        service,
        endpoint_url=os.environ["AWS_ENDPOINT_URL"],
        region_name=os.environ.get("AWS_REGION", "us-east-1"),
        aws_access_key_id=os.environ.get("AWS_ACCESS_KEY_ID", "id"),
        aws_secret_access_key=os.environ.get("AWS_SECRET_ACCESS_KEY", "secret"),
        config=Config(proxies={}),
    )
    method = command.replace("-", "_")
    operation = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[method])
    own, given = _options(rest)
    answer = getattr(client, method)(**_parameters(operation.input_shape, given))
    answer.pop("ResponseMetadata", None)
    _print(jmespath.search(own["--query"], answer) if "--query" in own else answer, own.get("--output", "json"))


def _options(rest: list[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    own: dict[str, str] = {}
    given: dict[str, list[str]] = {}
    name = ""
    for word in rest:
        if word.startswith("--"):
            name = word
            given.setdefault(name, [])
        else:
            given[name].append(word)
    for name in _OWN:
        if name in given:
            (own[name],) = given.pop(name)
    return own, given


def _parameters(shape: Any, given: dict[str, list[str]]) -> dict[str, Any]:
    names = {f"--{xform_name(member, '-')}": member for member in shape.members}
    names |= {"--notification-endpoint": "Endpoint"} if "Endpoint" in shape.members else {}
    unknown = given.keys() - names.keys()
    if unknown:
        sys.exit(f"Unknown options: {', '.join(sorted(unknown))}")
    return {names[name]: _value(shape.members[names[name]], words) for name, words in given.items()}


def _value(shape: Any, words: list[str]) -> Any:
    if shape.type_name == "list" and not words[0].startswith("["):
        return words
    (word,) = words
    if shape.type_name in ("structure", "map", "list"):
        return json.loads(word)
    return int(word) if shape.type_name in ("integer", "long") else word


def _print(value: Any, output: str) -> None:
    if value in ({}, None):
        return
    sys.stdout.write((str(value) if output == "text" else json.dumps(value, default=str)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
