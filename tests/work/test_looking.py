"""Looking at what lies in a store, while locks are held."""

import asyncio

import pytest

from headwater.errors import Unavailable
from headwater.storage.opening import open_s3
from headwater.storage.s3.requests import S3Credentials
from headwater.work.upload import looking


async def test_a_store_that_does_not_answer_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch):
    """As SeaweedFS does while a body of the same object is still coming."""
    monkeypatch.setattr(looking, "_WITHIN_S", 0.1)
    asked = asyncio.Event()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()  # until it hangs up
        writer.close()

    async def known(_: bool) -> S3Credentials:
        return S3Credentials("id", "secret", None)

    async with await asyncio.start_server(hear, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        store = open_s3(bucket="b", region="us-east-1", endpoint=url, credentials=known)
        try:
            with pytest.raises(Unavailable, match="did not tell"):
                await asyncio.wait_for(looking.look_at(store, ["a"]), 20)
        finally:
            await store.close()
    assert asked.is_set()
