"""Pushes images of a few bytes, as Docker does: the blobs, then a manifest a tag."""

import hashlib
from collections.abc import Iterable

import httpx
import orjson

from tests.servers import RegistryServer

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def push(server: RegistryServer, repository: str, tags: Iterable[str]) -> None:
    url = f"http://{server.host}/v2/{repository}"
    with httpx.Client(auth=(server.username, server.password), trust_env=False) as client:
        config = _push_blob(client, url, b"{}", "application/vnd.docker.container.image.v1+json")
        layer = _push_blob(client, url, b"not a real layer", "application/vnd.docker.image.rootfs.diff.tar.gzip")
        manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": [layer]}
        for tag in tags:
            content, headers = orjson.dumps(manifest), {"Content-Type": _MANIFEST}
            client.put(f"{url}/manifests/{tag}", content=content, headers=headers).raise_for_status()


def _push_blob(client: httpx.Client, url: str, content: bytes, media_type: str) -> dict[str, object]:
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    begun = client.post(f"{url}/blobs/uploads/")
    begun.raise_for_status()
    ended = client.put(httpx.URL(begun.headers["location"]).copy_add_param("digest", digest), content=content)
    ended.raise_for_status()
    return {"mediaType": media_type, "size": len(content), "digest": digest}
