"""CSV files as they come from people, and worse: each with what is to become of every row of it."""

import base64
import codecs
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

U = "https://example.com/pictures/"
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"x" * 30).decode()


@dataclass(frozen=True)
class Case:
    name: str
    body: bytes
    # Row -> "created:NAME", "refused:COLUMN:words of the reason" or "skipped"; in the order of rows.
    verdicts: dict[int, str] = field(default_factory=dict)
    refused: str | None = None  # words of the answer to a file that is refused as such
    options: dict[str, Any] = field(default_factory=dict)
    warning: str | None = None
    told: dict[str, Any] = field(default_factory=dict)


def table(
    *rows: str, end: str = "\n", header: str = "ID,URL,name", encoding: str = "utf-8", mark: bytes = b""
) -> bytes:
    return mark + end.join([header, *rows, ""]).encode(encoding)


TWO = (f"1,{U}a.jpg,one", f"2,{U}b.png,two.png")
BOTH = {2: "created:one.jpg", 3: "created:two.png"}


def _encodings() -> Iterator[Case]:
    yield Case(
        "UTF-8", table(f"1,{U}a.jpg,고양이", f"2,{U}b.jpg,café ☕"), {2: "created:고양이.jpg", 3: "created:café ☕.jpg"}
    )
    yield Case("UTF-8 with a BOM", table(*TWO, mark=codecs.BOM_UTF8), BOTH, told={"encoding": "utf-8"})
    for name, mark in (("utf-16-le", codecs.BOM_UTF16_LE), ("utf-16-be", codecs.BOM_UTF16_BE)):
        body = table(f"1,{U}a.jpg,고양이", f"2,{U}b.png,\N{CAT FACE}", encoding=name, end="\r\n")
        verdicts = {2: "created:고양이.jpg", 3: "created:\N{CAT FACE}.png"}
        yield Case(f"{name} with a BOM", mark + body, verdicts, told={"encoding": name})
        yield Case(f"{name} without a BOM", body, verdicts, told={"encoding": name})
        yield Case(f"{name} that is cut off", mark + body[:-5], {2: "created:고양이.jpg", 3: "refused:name:Half a"})
    half = table(f"1,{U}a.jpg,Q", encoding="utf-16-le").replace("Q".encode("utf-16-le"), b"\x00\xd8")
    yield Case("UTF-16 with half a pair", codecs.BOM_UTF16_LE + half, {2: "refused:name:Half a character"})
    yield Case("UTF-32", table(*TWO, mark=codecs.BOM_UTF32_LE, encoding="utf-32-le"), refused="UTF-32")
    latin = table(f"1,{U}a.jpg,café", f"2,{U}b.jpg,naïve Straße", encoding="cp1252")
    yield Case("Latin-1", latin, {2: "created:café.jpg", 3: "created:naïve Straße.jpg"}, told={"encoding": "cp1252"})
    yield Case(
        "Latin-1 as it is said",
        latin,
        {2: "created:café.jpg", 3: "created:naïve Straße.jpg"},
        options={"encoding": "iso8859-1"},
    )
    korean = table(f"1,{U}a.jpg,고양이", f"2,{U}b.jpg,작은 강아지", encoding="cp949")
    yield Case("cp949", korean, {2: "created:고양이.jpg", 3: "created:작은 강아지.jpg"}, told={"encoding": "cp949"})
    yield Case(
        "cp949 with its rare syllables",
        table(f"1,{U}a.jpg,뷁", encoding="cp949"),
        {2: "created:뷁.jpg"},
        options={"encoding": "cp949"},
    )
    yield Case(
        "Shift JIS as it is said",
        table(f"1,{U}a.jpg,ソ表", encoding="cp932"),  # letters whose second byte is a backslash
        {2: "created:ソ表.jpg"},
        options={"encoding": "cp932"},
    )
    yield Case(
        "a frame of pandas or R with nothing in it",
        table(
            f"1,{U}a.jpg,NA,NaN,None,<NA>,nan",
            f"NA,{U}b.png,null,NULL,nan,,",
            header="ID,URL,name,action,mimetype,item_metadata,image_bytes",
        ),
        {2: "created:1.jpg", 3: "created:NA.png"},
    )
    yield Case(
        "base64 that a spreadsheet cut off",
        table("1," + "A" * 32_767, "2," + "A" * 32_768, header="ID,image_bytes"),
        {2: "refused:image_bytes:32,767", 3: "created:2.jpg"},
    )
    yield Case(
        "a damaged byte in UTF-8",
        table(f"1,{U}a.jpg,고양이", f"2,{U}b.jpg,강아지").replace("강".encode(), b"\xea\xb0X"),
        {2: "created:고양이.jpg", 3: "refused:name:byte 0x"},
    )
    yield Case(
        "a damaged byte in a column that nobody reads",
        table(f"1,{U}a.jpg,고양이", header="ID,URL,name,note").replace(b"\xec\x9d\xb4", b"\xec\x9d\xb4,\xff"),
        {2: "created:고양이.jpg"},
        warning="'note'",
    )
    yield Case(
        "the wrong encoding as it is said",
        table(f"1,{U}a.jpg,é", encoding="cp1252"),
        {2: "refused:name:byte 0xe9"},
        options={"encoding": "utf-8"},
    )
    yield Case(
        "a BOM inside, of two files in one",
        table(*TWO) + codecs.BOM_UTF8 + f"3,{U}c.jpg,three\n".encode(),
        BOTH | {4: "created:three.jpg"},
    )
    yield Case(
        "a header once more, of two files in one",
        table(TWO[0]) + table(TWO[1]),
        {2: "created:one.jpg", 3: "refused:URL:", 4: "created:two.png"},
    )


def _separators() -> Iterator[Case]:
    for name, separator in (("semicolons", ";"), ("tabs", "\t"), ("bars", "|")):
        body = table(*TWO).replace(b",", separator.encode())
        yield Case(name, body, BOTH, told={"separator": separator})
    yield Case(
        "Excel's sep= line",
        b"sep=;\r\n" + table(*TWO).replace(b",", b";"),
        {3: "created:one.jpg", 4: "created:two.png"},
    )
    yield Case(
        "commas in a header of semicolons",
        b'ID;URL;"a,b,c"\n1;' + U.encode() + b"a.jpg;x\n",
        {2: "created:1.jpg"},
        warning="'a,b,c'",
    )
    yield Case(
        "a separator as it is said",
        f"URL|x,y,z\n{U}a.jpg|1\n".encode(),
        {2: "created:a.jpg"},
        options={"separator": "|"},
        warning="'x,y,z'",
    )
    yield Case(
        "separators at the ends", table(f"1,{U}a.jpg,one,,,", f"2,{U}b.png,two.png,", header="ID,URL,name,,"), BOTH
    )
    yield Case(
        "rows of separators alone", table(TWO[0], ",,", TWO[1], ",,,,,"), {2: "created:one.jpg", 4: "created:two.png"}
    )
    yield Case("spaces behind commas", f'ID, "URL", name\n1, "{U}a,b.jpg", one\n'.encode(), {2: "created:one.jpg"})
    yield Case("one column", f"url\n{U}a.jpg\n{U}b.jpg\n".encode(), {2: "created:a.jpg", 3: "created:b.jpg"})


def _ends() -> Iterator[Case]:
    yield Case("CRLF", table(*TWO, end="\r\n"), BOTH)
    yield Case("CR", table(*TWO, end="\r"), BOTH)
    yield Case(
        "all three",
        f"ID,URL,name\r\n{TWO[0]}\r{TWO[1]}\n3,{U}c.jpg,three\r\n".encode(),
        BOTH | {4: "created:three.jpg"},
    )
    yield Case("no end at the end", table(*TWO)[:-1], BOTH)
    yield Case(
        "blank lines",
        f"\n\nID,URL,name\n\n{TWO[0]}\r\n\r\n\n{TWO[1]}\n\n\n".encode(),
        {5: "created:one.jpg", 8: "created:two.png"},
    )
    yield Case(
        "line ends in a cell",
        table(f'1,{U}a.jpg,one,"line\nand ""line""\r\nmore"', TWO[1], header="ID,URL,name,item_description"),
        BOTH,
    )
    yield Case(
        "CRCRLF, as twice converted", table(TWO[0], TWO[1], end="\r\r\n"), {3: "created:one.jpg", 5: "created:two.png"}
    )


def _quotes() -> Iterator[Case]:
    yield Case(
        "everything quoted",
        table(*(",".join(f'"{cell}"' for cell in row.split(",")) for row in TWO), header='"ID","URL","name"'),
        BOTH,
    )
    yield Case("a comma in a quoted URL", table(f'1,"{U}a,b,c.jpg",one'), {2: "created:one.jpg"})
    yield Case(
        "a comma in a URL at the end", table(f"1,one,{U}w=1,h=2/a.jpg", header="ID,name,URL"), {2: "created:one.jpg"}
    )
    yield Case(
        "a comma in a URL before what is no URL",
        table(f"1,{U}a,b,c.jpg,link,image/png", header="ID,URL,action,mimetype"),
        {2: "created:1.png"},
    )
    yield Case(
        "a comma in a URL before a name",
        table(f"1,{U}a,b.jpg,one", TWO[1]),
        {2: "refused:URL:4 cells", 3: "created:two.png"},
    )
    yield Case(
        "a comma in a name", table("1,one,two.jpg," + U + "a.jpg", header="ID,name,URL"), {2: "refused::4 cells"}
    )
    yield Case("doubled quotes", table(f'1,{U}a.jpg,"say ""hi"""'), {2: 'created:say "hi".jpg'})
    yield Case("a quote in an unquoted cell", table(f'1,{U}a.jpg,5" disk'), {2: 'created:5" disk.jpg'})
    yield Case(
        "something behind a closing quote",
        table(f'1,{U}a.jpg,"one"x', TWO[1]),
        {2: "refused::closing quote", 3: "created:two.png"},
    )
    yield Case(
        "escaped by backslashes",
        table(f'1,{U}a.jpg,"{{\\"a\\":1}}"', f"2,{U}b.png,,", header="ID,URL,item_metadata"),
        {2: "refused::closing quote", 3: "created:2.png"},
    )
    yield Case(
        "an open quote at the end",
        table(TWO[0], f'2,{U}b.png,"two', f"3,{U}c.jpg,three", f"4,{U}d.jpg,four"),
        {2: "created:one.jpg", 3: "refused::never closed", 4: "created:three.jpg", 5: "created:four.jpg"},
    )
    yield Case(
        "an open quote before a quoted cell",
        table(f'1,{U}a.jpg,"one', f'2,{U}b.png,"two"', f"3,{U}c.jpg,three"),
        {2: "refused::closing quote", 3: "created:two.png", 4: "created:three.jpg"},
    )
    yield Case(
        "an open quote in the last cell",
        table(TWO[0], f'2,{U}b.png,"'),
        {2: "created:one.jpg", 3: "refused::never closed"},
    )
    yield Case("an open quote in the header", f'ID,"URL\n1,{U}a.jpg\n'.encode(), refused="never closed")


def _cells() -> Iterator[Case]:
    yield Case("NUL in a name", table(f"1,{U}a.jpg,o\0ne", TWO[1]), {2: "refused:name:NUL", 3: "created:two.png"})
    yield Case("NUL in a URL", table(f"1,{U}a\0.jpg,one"), {2: "refused:URL:NUL"})
    yield Case(
        "names that are no path",
        table(
            f"1,{U}a.jpg,../up",
            f"2,{U}b.jpg,a//b",
            f"3,{U}c.jpg,a/b.jpg",
            f"4,{U}d.jpg,{'x' * 1100}",
            f"5,{U}e.jpg,\tx\x07y",
        ),
        {
            2: "refused:name:path",
            3: "refused:name:path",
            4: "created:a/b.jpg",
            5: "refused:name:bytes",
            6: "refused:name:path",
        },
    )
    yield Case(
        "no name anywhere",
        table(f",{U}a.jpg,", ",https://example.com/,", f"3,{U}c.jpg,"),
        {2: "created:a.jpg", 3: "refused:name:called", 4: "created:3.jpg"},
    )
    yield Case(
        "columns in another case and order", table(f"one,{U}a.jpg,7", header="Name,u r l,Id"), {2: "created:one.jpg"}
    )
    yield Case(
        "columns with hyphens",
        table(f'{U}a.jpg,"{{""a"":1}}",hello', header="url,Item-Metadata,ITEM DESCRIPTION"),
        {2: "created:a.jpg"},
    )
    yield Case(
        "actions",
        table(
            f"1,{U}a.jpg,LINK,",
            f"2,{U}b.jpg,drop,",
            f"3,{U}c.jpg,,",
            f"4,,link,{PNG}",
            f"5,,upload,{PNG}",
            f"6,,,{PNG}",
            "7,,,",
            header="ID,URL,action,image_bytes",
        ),
        {
            2: "created:1.jpg",
            3: "refused:action:'drop'",
            4: "created:3.jpg",
            5: "refused:URL:needs a URL",
            6: "created:5.jpg",
            7: "created:6.jpg",
            8: "refused:URL:neither",
        },
    )
    yield Case(
        "types",
        table(
            f"1,{U}a,video",
            f"2,{U}b,image/png",
            f"3,{U}c,",
            f"4,{U}d,no type",
            f"5,{U}e.mp4,",
            f"6,{U}f.webp,image/jpg",
            header="ID,URL,mimetype",
        ),
        {
            2: "created:1.mp4",
            3: "created:2.png",
            4: "created:3.jpg",
            5: "refused:mimetype:'no type'",
            6: "created:5.mp4",
            7: "created:6.jpg",
        },
    )
    yield Case(
        "extensions",
        table(f"1,{U}a.jpeg,cat", f"2,{U}b.jpg,v1.2", f"3,{U}c?x=1.png,dog.gif", f"4,{U}d.tiff?sig=a/b.png,scan"),
        {2: "created:cat.jpeg", 3: "created:v1.2.jpg", 4: "created:dog.gif", 5: "created:scan.tiff"},
    )
    metadata = [
        '{"a":1}',
        "[1]",
        "{a:1}",
        '{"a":NaN}',
        "{}",
        '{"user":{"b":2}}',
        "1",
        '{"a":"\\u0000"}',
        '{"a":' * 200 + "1" + "}" * 200,
    ]
    quoted = ['"' + one.replace('"', '""') + '"' for one in metadata]
    yield Case(
        "metadata",
        table(*(f"{number},{U}{number}.jpg,{one}" for number, one in enumerate(quoted)), header="ID,URL,item_metadata"),
        {
            2: "created:0.jpg",
            3: "refused:item_metadata:no JSON object",
            4: "refused:item_metadata:not JSON",
            5: "refused:item_metadata:not JSON",
            6: "created:4.jpg",
            7: "created:5.jpg",
            8: "refused:item_metadata:no JSON object",
            9: "refused:item_metadata:NUL",
            10: "refused:item_metadata:nested",
        },
    )
    large = json.dumps({"a": "x" * 1_000_001}).replace('"', '""')
    yield Case(
        "metadata above a megabyte",
        table(f'1,{U}a.jpg,"{large}"', header="ID,URL,item_metadata"),
        {2: "refused:item_metadata:bytes"},
    )
    bodies = [
        PNG,
        f"data:image/webp;base64,{PNG}",
        "b'" + PNG + "'",
        "what?",
        "====",
        f'"{PNG[:20]}\n{PNG[20:]}"',
        PNG.rstrip("="),
        "QQ=Q",
    ]
    yield Case(
        "bytes",
        table(*(f"{number},{one}" for number, one in enumerate(bodies)), header="ID,image_bytes")
        .replace(b"data:image/webp;base64,", b'"data:image/webp;base64,')
        .replace(PNG.encode() + b"\n2,", PNG.encode() + b'"\n2,', 1),
        {
            2: "created:0.jpg",
            3: "created:1.webp",
            4: "created:2.jpg",
            5: "refused:image_bytes:not base64",
            6: "refused:image_bytes:",
            7: "created:5.jpg",
            8: "created:6.jpg",
            9: "refused:image_bytes:not base64",
        },
    )
    urls = [
        "ftp://example.com/a.jpg",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "http://127.0.0.1/a.jpg",
        "http://[::1]/a",
        "http://2130706433/a",
        "//example.com/a.jpg",
        "a.jpg",
        "http://user:pw@10.0.0.1/x",
        "http://localhost/x",
        "http:///x",
        "https://exa mple.com/x",
    ]
    yield Case(
        "URLs that are not fetched",
        table(*(f"{number},{one},n{number}" for number, one in enumerate(urls))),
        {number + 2: "refused:URL:" for number in range(len(urls))},
    )
    yield Case(
        "formulas",
        table(f"1,{U}a.jpg,=HYPERLINK(1)", f"2,{U}b.jpg,+x/../y"),
        {2: "created:'=HYPERLINK(1).jpg", 3: "refused:name:path"},
    )
    yield Case(
        "doubles",
        table(TWO[0], f"2,{U}b.jpg,one", f"3,{U}c.jpg,one.jpg", "4,ftp://x/y,four", f"5,{U}d.jpg,four"),
        {
            2: "created:one.jpg",
            3: "refused:name:Row 2 has this name",
            4: "refused:name:Row 2 has this name",
            5: "refused:URL:",
            6: "created:four.jpg",
        },
    )
    yield Case("fewer cells than columns", table("1", f"2,{U}b.png"), {2: "refused:URL:neither", 3: "created:2.png"})


def _shapes() -> Iterator[Case]:
    yield Case("nothing", b"", refused="empty")
    yield Case("a BOM and nothing", codecs.BOM_UTF8, refused="empty")
    yield Case("blank lines alone", b"\n\r\n \n", refused="blank lines only")
    yield Case("a header alone", b"ID,URL,name\n", {}, warning="no rows")
    yield Case("a header alone without an end", b"ID,URL,name", {}, warning="no rows")
    yield Case("no header", f"{TWO[0]}\n{TWO[1]}\n".encode(), refused="has to name the columns")
    yield Case("a column twice", table(f"{U}a.jpg,1,{U}b.jpg", header="URL,ID,u_r_l"), refused="URL twice")
    yield Case(
        "columns that mean nothing",
        table(f"1,{U}a.jpg,x,y", header="ID,URL,colour,größe"),
        {2: "created:1.jpg"},
        warning="'colour', 'größe'",
    )
    wide = [f"c{number}" for number in range(100_000)]
    yield Case(
        "100,000 columns",
        table(",".join(["1", U + "a.jpg", *["x"] * 100_000]), header=",".join(["ID", "URL", *wide])),
        {2: "created:1.jpg"},
        warning="99,990 more",
    )
    yield Case("a ZIP", b"PK\x03\x04" + bytes(1000), refused="XLSX")
    yield Case("an old Excel workbook", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), refused="XLS")
    yield Case("a PDF", b"%PDF-1.7\n" + bytes(100), refused="PDF")
    yield Case("compressed", b"\x1f\x8b\x08" + bytes(100), refused="gzip")
    yield Case("a picture", b"\xff\xd8\xff\xe0" + bytes(100), refused="JPEG")
    yield Case("HTML", b"<!DOCTYPE html><html><body>Not found</body></html>\n", refused="has to name the columns")
    yield Case("JSON", b'[{"URL": "https://example.com/a.jpg"}]\n', refused="has to name the columns")
    yield Case("noise", random.Random(1).randbytes(5000), refused="")
    yield Case("zeros", bytes(5000), refused="")
    long = "x" * 3_000_000
    yield Case(
        "huge cells",
        table(f"1,{U}a.jpg,one,{long}", f'2,{U}b.png,two.png,"{long}\n{long}"', header="ID,URL,name,item_description"),
        BOTH,
    )
    many = {row: f"created:{row}.jpg" for row in range(2, 3003)}
    yield Case("several pieces", table(*(f"{row},{U}{row}.jpg," for row in many)), many)


CASES = [*_encodings(), *_separators(), *_ends(), *_quotes(), *_cells(), *_shapes()]
