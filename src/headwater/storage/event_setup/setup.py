"""What to make in a cloud account so that a bucket tells Headwater what happens in it, with the least rights.

Sources: "Amazon S3 Event Notifications", "Granting permissions to publish event notification messages" and "API
destinations as targets in EventBridge" (AWS); "Pub/Sub notifications for Cloud Storage" and "Authentication for push
subscriptions" (Google Cloud); "Azure Blob Storage as Event Grid source" (Azure); `mc event`, "Bucket notifications"
of Ceph, `weed scaffold -config=notification`. Nothing here holds a secret but the hook's address.
"""

import json
import shlex
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import quote_plus

from headwater.errors import BadRequest
from headwater.storage.event_setup.writing import (
    Raw,
    filled,
    function_source,
    hcl_list,
    shell_json,
    shown,
    template,
    variable,
)

Cloud = Literal["aws", "s3", "gcs", "azure"]
Via = Literal["webhook", "queue", "eventbridge", "minio", "ceph", "seaweedfs"]
Format = Literal["commands", "terraform", "function"]
VIAS: tuple[Via, ...] = get_args(Via)
FORMATS: tuple[Format, ...] = get_args(Format)

_S3_EVENTS = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleExpiration:*"]
_AZURE_EVENTS = ["Microsoft.Storage.BlobCreated", "Microsoft.Storage.BlobDeleted"]
_RENAMES = ["Microsoft.Storage.BlobRenamed", "Microsoft.Storage.DirectoryRenamed", "Microsoft.Storage.DirectoryDeleted"]


@dataclass(frozen=True, slots=True)
class Source:
    """A driver, as far as its cloud has to know it."""

    cloud: Cloud  # s3: a server that speaks S3, at an endpoint of its own
    driver_id: int
    driver: str  # its name
    bucket: str
    prefix: str  # '' or ending with a slash
    region: str
    hook: str  # the address that takes events
    audience: str  # for whom Google signs its tokens
    endpoint: str | None = None
    account: str = ""  # of Azure
    has_folders: bool = False  # Data Lake: renames are events, too

    @property
    def name(self) -> str:
        """Of what is made: the same each time, another for each server; every cloud takes it."""
        return f"headwater-{self.driver_id:x}-{zlib.crc32(self.hook.encode()):08x}"[:30].rstrip("-")

    @property
    def partition(self) -> str:
        return {"cn": "aws-cn", "us-gov": "aws-us-gov"}.get(self.region.rpartition("-")[0].rpartition("-")[0], "aws")

    @property
    def bucket_arn(self) -> str:
        return f"arn:{self.partition}:s3:::{self.bucket}"


_CHOICES: dict[Cloud, dict[Via, tuple[Format, ...]]] = {
    "aws": {
        "queue": ("commands", "terraform"),
        "webhook": ("commands", "terraform", "function"),
        "eventbridge": ("commands", "terraform"),
    },
    "s3": {
        "minio": ("commands",),
        "ceph": ("commands",),
        "seaweedfs": ("commands",),
    },
    "gcs": {"webhook": ("commands", "terraform", "function")},
    "azure": {"webhook": ("commands", "terraform", "function"), "queue": ("commands", "terraform")},
}
_FUNCTIONS = {"aws": "aws_lambda", "gcs": "google_function", "azure": "azure_function"}


def ways(cloud: Cloud) -> dict[Via, tuple[Format, ...]]:
    """How a bucket there can tell, the usual way first, and as what each way can be printed."""
    return _CHOICES[cloud]


def text(source: Source, via: Via | None = None, format_: Format = "commands") -> str:
    """Ready to paste. Raises BadRequest for what that cloud does not offer.

    Without `via` it is the usual way; for a server that speaks S3, which does not say what it is, all of them.
    """
    known = _CHOICES[source.cloud]
    if source.cloud == "s3" and via in (None, "webhook"):
        _check(source, "minio", format_)
        return "\n".join(_WRITERS["s3", each, format_](source) for each in known)
    chosen = via or ("webhook" if "webhook" in known else next(iter(known)))
    _check(source, chosen, format_)
    if format_ == "function":
        return function_source(_FUNCTIONS[source.cloud])
    return _WRITERS[source.cloud, chosen, format_](source)


def _check(source: Source, via: Via, format_: Format) -> None:
    known = _CHOICES[source.cloud]
    if via not in known:
        raise BadRequest(
            f"Events of driver {source.driver!r} cannot come by way of {via}. Choose one of: {', '.join(known)}."
        )
    if format_ not in known[via]:
        raise BadRequest(f"There is no {format_} for {via} here. Choose one of: {', '.join(known[via])}.")
    if via == "eventbridge" and not source.hook.startswith("https://"):
        raise BadRequest(
            "EventBridge sends to https:// addresses only. Let this server be reached so (HEADWATER_PUBLIC_URL), or "
            "use a queue."
        )


def _policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _allow(action: str | list[str], resource: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource}


def _from_bucket(source: Source, action: str, resource: str) -> dict[str, Any]:
    """Only this bucket, and only while it belongs to the account that runs this."""
    return _policy(
        _allow(action, resource)
        | {
            "Principal": {"Service": "s3.amazonaws.com"},
            "Condition": {
                "ArnEquals": {"aws:SourceArn": source.bucket_arn},
                "StringEquals": {"aws:SourceAccount": variable("ACCOUNT")},
            },
        }
    )


def _notification(source: Source, kind: str, arn_name: str, arn: str, prefix: str) -> dict[str, Any]:
    told: dict[str, Any] = {"Id": source.name, arn_name: arn, "Events": _S3_EVENTS}
    if prefix:
        told["Filter"] = {"Key": {"FilterRules": [{"Name": "prefix", "Value": prefix}]}}
    return {kind: [told]}


def _encoded_prefix(source: Source) -> str:
    """As S3 wants it in a filter."""
    return quote_plus(source.prefix, safe="/!-_.*'()")


def _aws_values(source: Source) -> dict[str, str]:
    return {
        "region": source.region,
        "name": source.name,
        "bucket": source.bucket,
        "driver": shown(source.driver),
        "guard": Raw(template("guard.sh")),
        "hook": source.hook,
        "protocol": source.hook.partition(":")[0],
    }


def _aws_queue_commands(source: Source) -> str:
    queue = variable("QUEUE_ARN")
    redrive = '{"deadLetterTargetArn":"' + variable("DEAD_ARN") + '","maxReceiveCount":"5"}'
    policy = _from_bucket(source, "sqs:SendMessage", queue)
    reading = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
    kept = {"MessageRetentionPeriod": "1209600"}
    return filled(
        "aws-queue.sh",
        _aws_values(source)
        | {
            "dead_attributes": shell_json(kept),
            "queue_attributes": shell_json(kept | {"VisibilityTimeout": "60", "RedrivePolicy": redrive}),
            "queue_policy": shell_json({"Policy": _as_text(policy)}),
            "notification": shell_json(
                _notification(source, "QueueConfigurations", "QueueArn", queue, _encoded_prefix(source))
            ),
            "reader_policy": shell_json(_policy(_allow(reading, queue))),
        },
    )


def _as_text(document: dict[str, Any]) -> str:
    """JSON inside JSON."""
    return json.dumps(document, ensure_ascii=False)


def _aws_webhook_commands(source: Source) -> str:
    topic = variable("TOPIC_ARN")
    return filled(
        "aws-webhook.sh",
        _aws_values(source)
        | {
            "topic_policy": shell_json(_from_bucket(source, "sns:Publish", topic)),
            "notification": shell_json(
                _notification(source, "TopicConfigurations", "TopicArn", topic, _encoded_prefix(source))
            ),
        },
    )


def _pattern(source: Source) -> dict[str, Any]:
    detail: dict[str, Any] = {"bucket": {"name": [source.bucket]}}
    if source.prefix:
        detail["object"] = {"key": [{"prefix": source.prefix}]}
    return {"source": ["aws.s3"], "detail-type": ["Object Created", "Object Deleted"], "detail": detail}


def _aws_eventbridge_commands(source: Source) -> str:
    key = {"ApiKeyName": "X-Headwater-Driver", "ApiKeyValue": f"{source.driver_id:024x}"}
    destination = variable("DESTINATION_ARN")
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {"ArnEquals": {"aws:SourceArn": variable("RULE_ARN")}},
    }
    return filled(
        "aws-eventbridge.sh",
        _aws_values(source)
        | {
            "notification": shell_json({"EventBridgeConfiguration": {}}),
            "pattern": shell_json(_pattern(source)),
            "authorization": shell_json({"ApiKeyAuthParameters": key}),
            "trust": shell_json(_policy(trust)),
            "role_policy": shell_json(_policy(_allow("events:InvokeApiDestination", destination))),
            "targets": shell_json([{"Id": "headwater", "Arn": destination, "RoleArn": variable("ROLE_ARN")}]),
        },
    )


def _aws_terraform(source: Source, file: str) -> str:
    return filled(
        file,
        {
            "region": source.region,
            "name": source.name,
            "dead_name": f"{source.name}-dead",
            "bucket": source.bucket,
            "bucket_arn": source.bucket_arn,
            "filter_prefix": _encoded_prefix(source),
            "hook": source.hook,
            "protocol": source.hook.partition(":")[0],
            "driver_id": f"{source.driver_id:024x}",
            "pattern": _as_text(_pattern(source)),
        },
    )


def _gcs_values(source: Source) -> dict[str, str]:
    return {"name": source.name, "bucket": source.bucket, "hook": source.hook, "audience": source.audience}


def _gcs_commands(source: Source) -> str:
    flag = f"--object-prefix={shlex.quote(source.prefix)} " if source.prefix else ""
    return filled("gcs-webhook.sh", _gcs_values(source) | {"prefix_flag": Raw(flag), "driver": shown(source.driver)})


def _azure_values(source: Source) -> dict[str, str]:
    return {
        "name": source.name,
        "account": source.account,
        "hook": source.hook,
        "subject": f"/blobServices/default/containers/{source.bucket}/blobs/{source.prefix}",
    }


def _azure_events(source: Source) -> list[str]:
    return _AZURE_EVENTS + (_RENAMES if source.has_folders else [])


def _azure_commands(source: Source, file: str) -> str:
    events = Raw(" ".join(_azure_events(source)))
    return filled(file, _azure_values(source) | {"event_types": events, "driver": shown(source.driver)})


def _azure_terraform(source: Source, file: str) -> str:
    return filled(file, _azure_values(source) | {"event_types": hcl_list(_azure_events(source))})


def _minio(source: Source) -> str:
    flag = Raw(f"--prefix {shlex.quote(source.prefix)}" if source.prefix else "")
    return filled(
        "minio.sh",
        {
            "hook": source.hook,
            "bucket": source.bucket,
            "mc_prefix": flag,
            "driver": shown(source.driver),
            "target": Raw(source.name.replace("-", "")),  # stands in names of variables, too
        },
    )


def _ceph(source: Source) -> str:
    given = {"push-endpoint": source.hook, "verify-ssl": "true", "persistent": "true"}
    notification = _notification(source, "TopicConfigurations", "TopicArn", variable("TOPIC_ARN"), source.prefix)
    values = _aws_values(source) | {
        "endpoint": source.endpoint or "",
        "topic_attributes": shell_json(given),
        "notification": shell_json(notification),
    }
    return filled("ceph.sh", values)


def _seaweedfs(source: Source) -> str:
    return filled("seaweedfs.toml", {"hook": source.hook, "path": f"/buckets/{source.bucket}/{source.prefix}"})


_WRITERS: dict[tuple[Cloud, Via, Format], Callable[[Source], str]] = {
    ("aws", "queue", "commands"): _aws_queue_commands,
    ("aws", "webhook", "commands"): _aws_webhook_commands,
    ("aws", "eventbridge", "commands"): _aws_eventbridge_commands,
    ("aws", "queue", "terraform"): lambda source: _aws_terraform(source, "aws-queue.tf"),
    ("aws", "webhook", "terraform"): lambda source: _aws_terraform(source, "aws-webhook.tf"),
    ("aws", "eventbridge", "terraform"): lambda source: _aws_terraform(source, "aws-eventbridge.tf"),
    ("gcs", "webhook", "commands"): _gcs_commands,
    ("gcs", "webhook", "terraform"): lambda source: filled(
        "gcs-webhook.tf", _gcs_values(source) | {"prefix": source.prefix}
    ),
    ("azure", "webhook", "commands"): lambda source: _azure_commands(source, "azure-webhook.sh"),
    ("azure", "queue", "commands"): lambda source: _azure_commands(source, "azure-queue.sh"),
    ("azure", "webhook", "terraform"): lambda source: _azure_terraform(source, "azure-webhook.tf"),
    ("azure", "queue", "terraform"): lambda source: _azure_terraform(source, "azure-queue.tf"),
    ("s3", "minio", "commands"): _minio,
    ("s3", "ceph", "commands"): _ceph,
    ("s3", "seaweedfs", "commands"): _seaweedfs,
}
