"""Croissant: what the columns of an export mean, as JSON-LD that dataset tools read.

Source: the Croissant format specification 1.0 of MLCommons.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from headwater.catalog.exports import ExportFile

_PARQUET = "application/x-parquet"  # as Croissant tools know it
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def describe(
    *,
    name: str,
    dataset_id: str,
    made_at: datetime,
    files: Sequence[ExportFile],
    tables: Mapping[str, pa.Schema],
) -> dict[str, Any]:
    """The files lie beside the description, which names them without a folder."""
    present = {
        table: [file for file in files if file.name.startswith(f"{table}-")]
        for table in tables
        if any(file.name.startswith(f"{table}-") for file in files)
    }
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "description": f"The index of the dataset {name}: its items, with their metadata, and their annotations.",
        "identifier": dataset_id,
        "datePublished": made_at.strftime("%Y-%m-%d"),
        "dateModified": made_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "version": made_at.strftime("%Y.%-m.%-d"),
        "distribution": [part for table, found in present.items() for part in _distribution(table, found)],
        "recordSet": [_record_set(table, tables[table]) for table in present],
    }


def _distribution(table: str, files: Sequence[ExportFile]) -> list[dict[str, Any]]:
    objects = [
        {
            "@type": "cr:FileObject",
            "@id": file.name,
            "name": file.name,
            "contentUrl": file.name,
            "contentSize": f"{file.size_bytes} B",
            "encodingFormat": _PARQUET,
            "sha256": file.sha256,
        }
        for file in files
    ]
    files_of_table = {
        "@type": "cr:FileSet",
        "@id": f"{table}-files",
        "name": f"{table}-files",
        "encodingFormat": _PARQUET,
        "includes": f"{table}-*.parquet",
    }
    return [*objects, files_of_table]


def _record_set(table: str, schema: pa.Schema) -> dict[str, Any]:
    found: dict[str, Any] = {
        "@type": "cr:RecordSet",
        "@id": table,
        "name": table,
        "key": {"@id": f"{table}/id"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{table}/{column.name}",
                "name": f"{table}/{column.name}",
                "description": (column.metadata or {}).get(b"description", b"").decode(),
                "dataType": _type_of(column.type),
                "source": {"fileSet": {"@id": f"{table}-files"}, "extract": {"column": column.name}},
            }
            for column in schema
        ],
    }
    if table == "annotations":
        for field in found["field"]:
            if field["@id"] == "annotations/item_id":
                field["references"] = {"field": {"@id": "items/id"}}
    return found


def _type_of(column: pa.DataType) -> str:
    if pa.types.is_boolean(column):
        return "sc:Boolean"
    if pa.types.is_integer(column):
        return "sc:Integer"
    if pa.types.is_floating(column):
        return "sc:Float"
    return "sc:Date" if pa.types.is_timestamp(column) else "sc:Text"
