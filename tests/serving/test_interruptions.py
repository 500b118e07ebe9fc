"""Work that is cut off, gently or not, ends as if it had not been."""

import os
import re
from contextlib import closing

import psycopg
import pytest

from tests.buckets import new_bucket
from tests.conftest import stop_server
from tests.photos import COUNT, photos
from tests.serving.watching import processes_of, until, wait_for_end

FILES = 30_000


@pytest.fixture
def held(database_url):
    """A connection that can keep others from writing items."""
    with closing(psycopg.connect(database_url)) as conn:
        yield conn


def hold_items(conn: psycopg.Connection) -> None:
    conn.execute("LOCK TABLE item IN SHARE MODE")


def is_anybody_waiting(conn: psycopg.Connection) -> bool:
    found = conn.execute("SELECT FROM pg_locks WHERE NOT granted AND relation = 'item'::regclass").fetchone()
    return found is not None


def lasting(item: dict) -> dict:
    """An item without what differs between two datasets: ids, times, and addresses made of ids."""
    item = {name: value for name, value in item.items() if not re.search(r"[iI]d$|At$", name)}
    for name in ("url", "dataset", "annotations", "thumbnail", "stream"):
        assert item.pop(name)
    item["metadata"]["system"]["thumbnailId"] = bool(item["metadata"]["system"].get("thumbnailId"))
    return item


def end_state(server, dataset_id, bucket) -> dict:
    """Items as the API tells them, the dataset's counters, and every object that we put into the bucket."""
    found = server.items(dataset_id)
    thumbnails = {item["id"]: bucket.get(thumbnail_keys(bucket)[item["id"]]) for item in found}
    counts = server.dataset(dataset_id)["counts"]
    counts.pop("syncedAt")
    return {
        "items": {item["filename"]: lasting(item) for item in found},
        "thumbnails": {item["filename"]: thumbnails[item["id"]] for item in found},
        "counts": counts,
        "objects": len(thumbnail_keys(bucket)),
    }


def thumbnail_keys(bucket) -> dict[str, str]:
    pages = bucket.client.get_paginator("list_objects_v2").paginate(Bucket=bucket.name, Prefix=".dataloop/thumbnails/")
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    return {re.split(r"[/.]", key)[-2]: key for key in keys}


def test_a_worker_and_a_server_killed_in_the_middle_end_as_if_undisturbed(start, database_url, held, weed):
    calm, stormy = new_bucket(weed), new_bucket(weed)
    for photo in photos():
        calm.put(photo.key, photo.content)
        stormy.put(photo.key, photo.content)
    server = start(HEADWATER_DATABASE_URL=database_url).log_in()
    undisturbed = server.s3_dataset(calm)
    server.wait_for_thumbnails(undisturbed)
    wanted = end_state(server, undisturbed, calm)
    assert wanted["objects"] == len(wanted["items"]) == COUNT

    hold_items(held)
    disturbed = server.s3_dataset(stormy)
    until(lambda: is_anybody_waiting(held), "the sync is in the middle of its batch")
    worker = server.child("worker")
    worker.kill()  # -9
    until(lambda: not worker.is_running(), "the worker is gone")
    held.rollback()
    server.wait_for_sync(disturbed)  # by a new worker, without anybody's help
    until(lambda: server.dataset(disturbed)["counts"]["preprocessed"] > 0, "preprocessing is under way")
    server.running.process.kill()
    server.running.process.wait(10)

    again = start(server.running.data_dir, HEADWATER_DATABASE_URL=database_url).log_in()
    is_cut_off = again.dataset(disturbed)["counts"]["waiting"] > 0
    again.wait_for_thumbnails(disturbed)
    assert is_cut_off, "the kill came too late to prove anything"
    assert end_state(again, disturbed, stormy) == wanted


def test_a_server_stopped_in_the_middle_of_a_sync_goes_on_where_it_was(start, database_url, held, tmp_path):
    for number in range(FILES):
        os.mknod(tmp_path / f"{number:05}.dat")
    settings = {"HEADWATER_DATABASE_URL": database_url, "HEADWATER_LOCAL_ROOTS": str(tmp_path)}
    server = start(**settings).log_in()
    dataset_id = server.folder_dataset(tmp_path)

    def has_begun() -> bool:
        row = held.execute("SELECT FROM scan_shard WHERE cursor_path IS NOT NULL").fetchone()
        held.rollback()
        return row is not None

    until(has_begun, "the first batch is committed")
    hold_items(held)
    until(lambda: is_anybody_waiting(held), "a later batch waits")
    family = processes_of(server.running.data_dir)
    assert stop_server(server.running, 10) == 0
    wait_for_end(family)
    before = held.execute("SELECT count(*), max(id) FROM item").fetchone()
    held.rollback()
    assert 0 < before[0] < FILES

    again = start(server.running.data_dir, **settings).log_in()
    again.wait_for_sync(dataset_id)
    ((spec, status),) = held.execute("SELECT spec, status FROM command").fetchall()
    assert status == "success"
    assert (spec["sync"]["listed"], spec["sync"]["created"]) == (FILES, FILES)
    assert held.execute("SELECT count(*) FROM item WHERE id <= %s", [before[1]]).fetchone() == (before[0],)
    assert again.dataset(dataset_id)["counts"]["items"] == FILES
