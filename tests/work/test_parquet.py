"""Parquet and Croissant: DuckDB, pandas and mlcroissant read in them what the index holds."""

import hashlib
import json
from datetime import UTC, datetime

import duckdb
import mlcroissant
import pandas as pd
import pyarrow.parquet as pq
import pytest
from psycopg.types.json import Jsonb

from headwater.catalog import folders
from headwater.work.exporting import croissant, parquet
from tests.work.test_exporting import annotate, export, read

HARD = {"quote": 'a "b", c', "line": "one\ntwo\r\nthree", "empty": "", "é\u2028": "\U0001f600", "back": "\\N \\. \\"}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(parquet, "FILE_ROWS", 40)
    monkeypatch.setattr(parquet, "_GROUP_ROWS", 16)


async def filled(world, dataset, number: int = 100) -> None:
    """With values that are hard to quote, and some that are not there."""
    for n in range(number):
        await world.upload(dataset, f"/f{n % 3}/{n}.txt", b"x" * n)
    async with world.connection() as conn:
        for n in range(number):
            metadata = {"n": n, "half": n / 2, "even": n % 2 == 0, "text": f"t{n}", "mixed": [n, "a"][n % 2], **HARD}
            if n % 5 == 0:
                metadata |= {"rare": {"deep": n}, "list": [1, "a", None], "null": None}
            await conn.execute(
                """
                UPDATE item
                SET user_metadata = %s, width_px = %s, height_px = %s, description = %s, mime_type = %s
                WHERE dataset_id = %s AND path = %s
                """,
                [
                    Jsonb(metadata) if n % 7 else None,
                    n if n % 4 else None,
                    2 * n if n % 4 else None,
                    ["", None, 'say "so",\n'][n % 3],
                    "text/plain" if n % 2 else None,
                    dataset.id,
                    f"/f{n % 3}/{n}.txt",
                ],
            )


async def saved(world, command, folder):
    """The files of an export on this machine, with the hashes that were told."""
    for file in command.spec["files"]:
        body = await read(world, file["id"])
        assert (len(body), hashlib.sha256(body).hexdigest()) == (file["size"], file["sha256"])
        (folder / file["filename"]).write_bytes(body)
    return folder


async def rows(world, dataset) -> list[dict]:
    """The truth, row by row."""
    async with world.connection() as conn:
        cursor = await conn.execute(
            """
            SELECT item.id, path, size_bytes, mime_type, width_px, height_px, item.created_at, item.updated_at,
                modified_at, account.email, etag, hidden, object_key, annotations_count, description, user_metadata
            FROM item
            LEFT JOIN account ON account.id = creator_id
            WHERE dataset_id = %s
            ORDER BY item.id
            """,
            [dataset.id],
        )
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]


async def test_every_value_of_the_index_is_in_the_columns(world, small, tmp_path):
    dataset, _ = await world.own_dataset()
    await filled(world, dataset)
    await annotate(world, dataset, "/f1/4.txt", "cat", 'a "dog",\nreally')
    folder = await saved(world, await export(world, dataset, format="parquet"), tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [
        "annotations-00000.parquet",
        "croissant.json",
        "items-00000.parquet",
        "items-00001.parquet",
        "items-00002.parquet",
    ]
    found = pq.read_table([folder / f"items-0000{n}.parquet" for n in range(3)])
    assert found.schema.equals(parquet.item_schema({}))
    truth = await rows(world, dataset)
    assert len(found) == len(truth) == 100
    for one, row in zip(found.to_pylist(), truth, strict=True):
        assert one["id"] == f"{row['id']:024x}"
        for name in ("path", "size_bytes", "mime_type", "width_px", "height_px", "created_at", "updated_at", "etag"):
            assert one[name] == row[name], name
        assert (one["dir"], one["name"]) == (folders.folder_of(row["path"]), folders.name_of(row["path"]))
        assert (one["description"], one["key"], one["hidden"]) == (row["description"], row["object_key"], False)
        assert (one["modified_at"], one["creator"], one["storage_url"]) == (row["modified_at"], row["email"], None)
        assert (one["annotated"], one["annotations_count"]) == (row["annotations_count"] > 0, row["annotations_count"])
        assert (None if one["user_metadata"] is None else json.loads(one["user_metadata"])) == row["user_metadata"]
        assert (one["missing"], one["preprocessing"]) == (False, "waiting")
    said = pq.read_table(folder / "annotations-00000.parquet").to_pylist()
    assert [(one["item_path"], one["type"], one["label"]) for one in said] == [
        ("/f1/4.txt", "class", "cat"),
        ("/f1/4.txt", "class", 'a "dog",\nreally'),
    ]


async def test_duckdb_and_pandas_read_them(world, small, tmp_path):
    dataset, _ = await world.own_dataset()
    await filled(world, dataset)
    await annotate(world, dataset, "/f1/4.txt", "cat")
    folder = await saved(world, await export(world, dataset, format="parquet", columns=["metadata.user.n"]), tmp_path)
    with duckdb.connect() as asked:
        total, size, widest = asked.execute(
            f"SELECT count(*), sum(size_bytes), max(width_px) FROM '{folder}/items-*.parquet'"
        ).fetchone()
        joined = asked.execute(
            f"""
            SELECT items.path, said.label
            FROM '{folder}/items-*.parquet' AS items
            JOIN '{folder}/annotations-*.parquet' AS said ON said.item_id = items.id
            """
        ).fetchall()
        (even,) = asked.execute(
            f"SELECT count(*) FROM '{folder}/items-*.parquet' WHERE (user_metadata::JSON ->> '$.even') = 'true'"
        ).fetchone()
    truth = await rows(world, dataset)
    assert (total, size, widest) == (100, sum(range(100)), 99)
    assert joined == [("/f1/4.txt", "cat")]
    assert even == sum(bool(row["user_metadata"] and row["user_metadata"]["even"]) for row in truth)
    frame = pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("items-*.parquet"))])
    assert list(frame["path"]) == [row["path"] for row in truth]
    assert frame["metadata.user.n"].sum() == sum(row["user_metadata"]["n"] for row in truth if row["user_metadata"])


async def test_paths_of_metadata_are_columns_of_their_types(world, small, tmp_path):
    dataset, _ = await world.own_dataset()
    await filled(world, dataset)
    names = ["n", "half", "even", "text", "mixed", "rare.deep", "list", "nothing", "empty", "é\u2028"]
    columns = [f"metadata.user.{name}" for name in names]
    folder = await saved(world, await export(world, dataset, format="parquet", columns=columns), tmp_path)
    found = pq.read_table(sorted(folder.glob("items-*.parquet")))
    kinds = ["int64", "double", "bool", "string", "string", "int64", "string", "string", "string", "string"]
    assert [str(found.schema.field(column).type) for column in columns] == kinds
    truth = await rows(world, dataset)
    for one, row in zip(found.to_pylist(), truth, strict=True):
        user = row["user_metadata"] or {}
        for name in ("n", "half", "even", "text", "empty", "é\u2028"):
            assert one[f"metadata.user.{name}"] == user.get(name)
        mixed = user.get("mixed")
        assert one["metadata.user.mixed"] == (None if mixed is None else str(mixed))
        assert one["metadata.user.rare.deep"] == user.get("rare", {}).get("deep")
        listed = one["metadata.user.list"]
        assert (None if listed is None else json.loads(listed)) == user.get("list")
        assert one["metadata.user.nothing"] is None


async def test_types_that_are_said_hold_and_what_does_not_fit_is_null(world, tmp_path):
    dataset, _ = await world.own_dataset()
    values = [1, 2.5, "x", True, 10**30, -(10**400), None, [1], {"a": 1}]
    for n, value in enumerate(values):
        await world.upload(dataset, f"/{n}.txt", b"", user_metadata={"v": value})
    found = {}
    for kind in ("int64", "double", "bool", "string"):
        folder = tmp_path / kind
        folder.mkdir()
        await saved(world, await export(world, dataset, format="parquet", columns={"metadata.user.v": kind}), folder)
        found[kind] = pq.read_table(folder / "items-00000.parquet")["metadata.user.v"].to_pylist()
    none = [None] * 9
    assert found["int64"] == [1, *none[1:]]
    assert found["double"] == [1.0, 2.5, None, None, 1e30, *none[5:]]
    assert found["bool"] == [None, None, None, True, *none[4:]]
    assert found["string"][:5] == ["1", "2.5", "x", "true", str(10**30)]
    assert [None if text is None else json.loads(text) for text in found["string"][6:]] == values[6:]


async def test_nothing_chosen_is_a_table_without_rows(world, tmp_path):
    dataset, _ = await world.own_dataset()
    folder = await saved(world, await export(world, dataset, format="parquet", filter={"name": "none"}), tmp_path)
    found = pq.read_table(folder / "items-00000.parquet")
    assert (len(found), found.schema.equals(parquet.item_schema({}))) == (0, True)


async def test_a_group_is_cut_where_its_rows_are_long(world, tmp_path, monkeypatch):
    dataset, _ = await world.own_dataset()
    for n in range(20):
        await world.upload(dataset, f"/{n}.txt", b"", user_metadata={"long": "x" * 1000, "n": n})
    monkeypatch.setattr(parquet, "_GROUP_BYTES", 3_000)
    folder = await saved(world, await export(world, dataset, format="parquet"), tmp_path)
    found = pq.ParquetFile(folder / "items-00000.parquet")
    assert found.metadata.num_rows == 20
    assert found.metadata.num_row_groups > 5
    users = [json.loads(text)["n"] for text in found.read()["user_metadata"].to_pylist()]
    assert users == list(range(20))


async def test_paths_of_any_kind_have_the_folders_that_we_know(world, tmp_path):
    dataset, _ = await world.own_dataset()
    paths = ["/a.txt", "/a/b.txt", "//b.txt", "/a//b.txt", "///", "/a/", "/a\nb/c\nd.txt", "/ü/😀.txt", "/a/b/c/"]
    for n, path in enumerate(paths):
        await world.upload(dataset, f"/{n}", b"")
        async with world.connection() as conn:
            await conn.execute(
                "UPDATE item SET path = %s WHERE dataset_id = %s AND path = %s", [path, dataset.id, f"/{n}"]
            )
    folder = await saved(world, await export(world, dataset, format="parquet"), tmp_path)
    found = pq.read_table(folder / "items-00000.parquet").to_pylist()
    told = [(one["path"], one["dir"], one["name"]) for one in found]
    assert told == [(path, folders.folder_of(path), folders.name_of(path)) for path in paths]


async def test_items_of_a_bucket_tell_where_they_lie(world, tmp_path):
    dataset, root = await world.local_dataset(prefix="in/")
    (root / "in/a").mkdir(parents=True)
    (root / "in/a/b c.txt").write_bytes(b"1")
    await world.sync(dataset)
    folder = await saved(world, await export(world, dataset, format="parquet"), tmp_path)
    (one,) = pq.read_table(folder / "items-00000.parquet").to_pylist()
    assert (one["key"], one["storage_url"]) == ("a/b c.txt", f"file://{root}/in/a/b c.txt")


@pytest.mark.filterwarnings("ignore")  # of what mlcroissant stands on
async def test_croissant_is_valid_and_its_records_are_read(world, small, tmp_path):
    dataset, _ = await world.own_dataset()
    await filled(world, dataset)
    await annotate(world, dataset, "/f1/4.txt", "cat", "dog")
    asked = {"format": "croissant", "columns": ["metadata.user.text"]}
    folder = await saved(world, await export(world, dataset, **asked), tmp_path)
    described = mlcroissant.Dataset(jsonld=folder / "croissant.json")
    assert not described.metadata.ctx.issues.errors
    found = list(described.records("items"))
    truth = await rows(world, dataset)
    assert sorted(one["items/path"].decode() for one in found) == sorted(row["path"] for row in truth)
    said = list(described.records("annotations"))
    assert [one["annotations/label"] for one in said] == [b"cat", b"dog"]


def test_a_dataset_without_annotations_describes_none():
    described = croissant.describe(
        name="x", dataset_id="0", made_at=datetime(2026, 1, 2, tzinfo=UTC), files=[], tables={"annotations": None}
    )
    assert (described["distribution"], described["recordSet"]) == ([], [])
