"""The smallest rights that let Headwater do its work in a bucket, in each cloud's own words, ready to paste.

Sources: "Actions, resources, and condition keys for Amazon S3" (Service Authorization Reference), "IAM permissions for
Cloud Storage", "Azure built-in roles for Storage". Names of accounts and people that only the reader knows stand in
capitals. No policy holds a secret.
"""

import json
import os
import shlex
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

Right = Literal["list", "get", "put", "delete", "multipart", "sign", "derived"]
"""What is to be allowed; `derived` is deleting what we made ourselves, below .dataloop/."""
Cloud = Literal["aws", "gcs", "azure", "folder"]

DERIVED = ".dataloop/"


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of a bucket or container, or a folder of this machine."""

    cloud: Cloud
    bucket: str
    prefix: str = ""  # '' or ending with a slash
    region: str = ""
    account: str = "STORAGE-ACCOUNT"  # of Azure


@dataclass(frozen=True, slots=True)
class Policy:
    """One thing to paste: a document, or a command that sets it."""

    kind: Literal["aws-policy", "azure-role", "gcp-role", "cors", "folder-rights"]
    hint: str  # where it goes, a sentence
    document: Any = None  # JSON
    command: str | None = None

    @property
    def text(self) -> str:
        return self.command or json.dumps(self.document)


def all_rights(*, read_only: bool, allow_delete: bool) -> list[Right]:
    """What a driver needs for all that Headwater does."""
    if read_only:
        return ["list", "get"]
    return ["list", "get", "put", "multipart", "delete" if allow_delete else "derived"]


def smallest(place: Place, rights: Iterable[Right]) -> Policy:
    wanted = sorted(set(rights))
    match place.cloud:
        case "aws":
            return _aws(place, wanted)
        case "gcs":
            return _gcp(place, wanted)
        case "azure":
            return _azure(place, wanted)
        case "folder":
            return _folder(place, wanted)


def cors(place: Place, origin: str) -> Policy:
    """Lets pages of `origin` read objects, and write them, by signed URLs."""
    methods, exposed = ["GET", "HEAD", "PUT"], ["Content-Length", "Content-Range", "Content-Type", "ETag"]
    bucket = shlex.quote(place.bucket)
    match place.cloud:
        case "gcs":
            rule = {"origin": [origin], "method": methods, "responseHeader": exposed, "maxAgeSeconds": 3600}
            return Policy(
                "cors",
                f"Save it as cors.json, then: gcloud storage buckets update gs://{place.bucket} --cors-file=cors.json",
                [rule],
            )
        case "azure":
            return Policy(
                "cors",
                "Run it with the Azure CLI; it holds for the whole storage account.",
                command=f"az storage cors add --services b --account-name {place.account} --methods "
                f"{' '.join(methods)} --origins {shlex.quote(origin)} --allowed-headers '*' --exposed-headers "
                f"{' '.join(exposed)} --max-age 3600",
            )
        case _:
            rule = {
                "AllowedOrigins": [origin],
                "AllowedMethods": methods,
                "AllowedHeaders": ["*"],
                "ExposeHeaders": exposed,
                "MaxAgeSeconds": 3600,
            }
            return Policy(
                "cors",
                f"Save it as cors.json, then: aws s3api put-bucket-cors --bucket {bucket} "
                "--cors-configuration file://cors.json",
                {"CORSRules": [rule]},
            )


# Amazon S3, and the servers that speak its language

_AWS_ACTIONS: dict[Right, tuple[str, ...]] = {
    "list": ("s3:ListBucket",),
    "get": ("s3:GetObject",),
    "sign": ("s3:GetObject",),  # who may read may sign
    "put": ("s3:PutObject",),
    "multipart": ("s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"),  # who may put may begin
    "delete": ("s3:DeleteObject",),
    "derived": ("s3:DeleteObject",),
}


def _aws(place: Place, rights: Collection[Right]) -> Policy:
    partition = {"cn": "aws-cn", "us-gov": "aws-us-gov"}.get(place.region.rpartition("-")[0].rpartition("-")[0], "aws")
    arn, inside = f"arn:{partition}:s3:::{place.bucket}", _aws_literal(place.prefix)
    statements: list[dict[str, Any]] = []
    if "list" in rights:
        listing: dict[str, Any] = {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": arn}
        if inside:
            listing["Condition"] = {"StringLike": {"s3:prefix": f"{inside}*"}}
        statements.append(listing)
    actions = {action for right in rights if right not in ("list", "derived") for action in _AWS_ACTIONS[right]}
    if actions:
        statements.append({"Effect": "Allow", "Action": sorted(actions), "Resource": f"{arn}/{inside}*"})
    if "derived" in rights:
        ours = f"{arn}/{inside}{DERIVED}*"
        statements.append({"Effect": "Allow", "Action": ["s3:DeleteObject"], "Resource": ours})
    return Policy(
        "aws-policy",
        "Attach it to the user or role of these credentials: IAM, Add permissions, Create inline policy, JSON. "
        "MinIO and Ceph take it too.",
        {"Version": "2012-10-17", "Statement": statements},
    )


def _aws_literal(text: str) -> str:
    """Characters that stand for others in a policy stand for themselves."""
    return "".join(f"${{{letter}}}" if letter in "*?$" else letter for letter in text)


# Google Cloud Storage

_GCP_PERMISSIONS: dict[Right, tuple[str, ...]] = {
    "list": ("storage.objects.list",),
    "get": ("storage.objects.get",),
    "sign": ("storage.objects.get",),
    # Replacing an object is deleting it there, also for thumbnails that are made anew.
    "put": ("storage.objects.create", "storage.objects.delete"),
    "multipart": (
        "storage.objects.create",
        "storage.objects.delete",
        "storage.multipartUploads.create",
        "storage.multipartUploads.abort",
        "storage.multipartUploads.listParts",
    ),
    "delete": ("storage.objects.delete",),
    "derived": ("storage.objects.delete",),
}


def _gcp(place: Place, rights: Collection[Right]) -> Policy:
    permissions = sorted({name for right in rights for name in _GCP_PERMISSIONS[right]})
    is_reading = set(permissions) <= {"storage.objects.list", "storage.objects.get"}
    role = "roles/storage.objectViewer" if is_reading else "roles/storage.objectUser"
    return Policy(
        "gcp-role",
        "Run it with the Google Cloud CLI. The role is the smallest ready-made one; a role of your own needs "
        f"{', '.join(permissions)}.",
        {"role": role, "permissions": permissions},
        f"gcloud storage buckets add-iam-policy-binding gs://{shlex.quote(place.bucket)} "
        f"--member=serviceAccount:SERVICE-ACCOUNT-EMAIL --role={role}",
    )


# Azure Blob Storage and Data Lake Gen2

_SAS_LETTERS: dict[Right, str] = {
    "list": "l",
    "get": "r",
    "sign": "r",
    "put": "cw",
    "multipart": "cw",
    "delete": "d",
    "derived": "d",
}


def _azure(place: Place, rights: Collection[Right]) -> Policy:
    is_reading = set(rights) <= {"list", "get"}
    role = "Storage Blob Data Reader" if is_reading else "Storage Blob Data Contributor"
    scope = (
        "/subscriptions/SUBSCRIPTION-ID/resourceGroups/RESOURCE-GROUP/providers/Microsoft.Storage/storageAccounts/"
        f"{place.account}"
    )
    if set(rights) == {"sign"}:  # keys for signing are lent by the account, not by the container
        role = "Storage Blob Delegator"
    else:
        scope += f"/blobServices/default/containers/{place.bucket}"
    letters = "".join(letter for letter in "racwdl" if letter in "".join(_SAS_LETTERS[right] for right in rights))
    return Policy(
        "azure-role",
        f"Run it with the Azure CLI, for a service principal. A SAS needs the permissions {letters} instead; an "
        "account key may do everything.",
        {"role": role, "scope": scope},
        f"az role assignment create --assignee CLIENT-ID --role {shlex.quote(role)} --scope {shlex.quote(scope)}",
    )


# Folders of this machine


def _folder(place: Place, rights: Collection[Right]) -> Policy:
    letters = "rX" if set(rights) <= {"list", "get"} else "rwX"
    rule = f"u:{os.geteuid()}:{letters}"
    return Policy(
        "folder-rights",
        "Run it on the server's machine. A folder that is mounted for reading only has to be mounted anew.",
        command=f"sudo setfacl -R -m {rule} -m d:{rule} {shlex.quote(os.path.join(place.bucket, place.prefix))}",  # noqa: PTH118 - keys are exact
    )
