"""What stores and networks have done to listings: each entry is a name, a sentence and what is answered.

`ends` is how a sync has to end: "well" (the adapter got over it), "warned" (the rest is right), "failed" or "held" (the
brake), the latter three with the words in its sentence. None of them may remove anything.
"""

import gzip
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from aiohttp import web

from tests.storage.played import Asked, Bend, Page, Played, token_after
from tests.storage.scripted import broken_off

PREFIX = "in/"
CLOUDS = ("s3", "gcs", "azure")
XML = ("s3", "azure")


@dataclass(frozen=True, slots=True)
class Outage:
    name: str
    sentence: str
    ends: Literal["well", "warned", "failed", "held"]
    words: str = ""  # of the command's error or warning; a regular expression
    bend: Callable[[], Bend] | None = None  # makes one for each run
    change: Callable[[Played], object] | None = None  # of the bucket, undone afterwards
    clouds: tuple[str, ...] = CLOUDS


def on(is_hit: Callable[[int], bool], answer: Bend) -> Callable[[], Bend]:
    """`answer` for the requests that are hit, counted from 1; the others are answered as is right."""

    async def bend(cloud: Played, asked: Asked, page: Page) -> Page | web.StreamResponse:
        return await answer(cloud, asked, page) if is_hit(asked.number) else page

    return lambda: bend


def always(answer: Bend) -> Callable[[], Bend]:
    return on(lambda _: True, answer)


def after(pages: int, answer: Bend) -> Callable[[], Bend]:
    return on(lambda number: number > pages, answer)


def for_a_while(first: int, times: int, answer: Bend) -> Callable[[], Bend]:
    return on(lambda number: first <= number < first + times, answer)


def refused(kind: str) -> Bend:
    async def answer(cloud: Played, _asked: Asked, _page: Page) -> web.Response:
        return cloud.refuse(kind)

    return answer


def says(status: int, body: bytes = b"", **headers: str) -> Bend:
    async def answer(_cloud: Played, _asked: Asked, _page: Page) -> web.Response:
        return web.Response(status=status, body=body, headers=headers)

    return answer


def body_as(change: Callable[[bytes], bytes], **headers: str) -> Bend:
    """The right page, with its bytes changed."""

    async def answer(cloud: Played, _asked: Asked, page: Page) -> web.Response:
        body = cloud.render(page).body
        assert isinstance(body, bytes)
        return web.Response(body=change(body), headers=headers)

    return answer


def page_as(change: Callable[[Asked, Page], Page]) -> Bend:
    """The right page with its keys or its token changed."""

    async def answer(_cloud: Played, asked: Asked, page: Page) -> Page:
        return change(asked, page)

    return answer


async def half_a_page(cloud: Played, asked: Asked, page: Page) -> web.StreamResponse:
    """Content-Length promises the whole, half of it comes."""
    body = cloud.render(page).body
    assert isinstance(body, bytes)
    response = web.StreamResponse(headers={"Content-Length": str(len(body))})
    await response.prepare(asked.request)
    await response.write(body[: len(body) // 2])
    assert asked.request.transport is not None
    asked.request.transport.close()
    return response


async def reset(_cloud: Played, asked: Asked, _page: Page) -> web.StreamResponse:
    return await broken_off(asked.request)


async def hangs(cloud: Played, _asked: Asked, page: Page) -> web.StreamResponse:
    await cloud.over.wait()
    return cloud.render(page)


async def hangs_in_the_body(cloud: Played, asked: Asked, _page: Page) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100000"})
    await response.prepare(asked.request)
    await response.write(b"<")
    await cloud.over.wait()
    return response


def empty(_asked: Asked, _page: Page) -> Page:
    return Page([])


def empty_with_more(asked: Asked, _page: Page) -> Page:
    return Page([], token=token_after(asked.after, f".{asked.number}"))


def same_token(asked: Asked, page: Page) -> Page:
    """From its second page on, a listing is told to ask for the same page again."""
    return page if asked.token is None else replace(page, token=asked.token)


def back_to_the_second_page(_asked: Asked, page: Page) -> Page:
    return page if page.token is not None else replace(page, token=token_after(f"{PREFIX}a/019"))


def skipped(cloud: Played, beginning: str) -> None:
    cloud.is_unlisted = lambda key: key.startswith(PREFIX + beginning)


def made_anew(cloud: Played, *keys: str) -> None:
    cloud.objects = {PREFIX + key: b"x" for key in keys}


def lists_by_letters_without_case(cloud: Played) -> None:
    cloud.order = lambda key: (key.lower(), key)


def lists_by_folders(cloud: Played) -> None:
    cloud.order = lambda key: key.split("/")


def lists_backwards(cloud: Played) -> None:
    cloud.order = lambda key: [-byte for byte in key.encode()]


LOGIN_PAGE = b"<!DOCTYPE html><html><body><h1>Sign in</h1><br><a href=/>again</a></body></html>"
NEAT_LOGIN_PAGE = b'<html xmlns="http://www.w3.org/1999/xhtml"><body><h1>Sign in</h1></body></html>'
NO_PAGE = "no whole (XML document|page of objects)"

EMPTY = [
    Outage(
        "empty 200",
        "The listing is empty, and says that it is whole.",
        "held",
        "listing came back empty",
        always(page_as(empty)),
    ),
    Outage("nothing at all", "The answer is 200 without a byte.", "failed", NO_PAGE, always(says(200))),
    Outage(
        "bucket made anew",
        "Somebody deleted the bucket and made one of the same name.",
        "held",
        "listing came back empty",
        change=made_anew,
    ),
    Outage(
        "bucket made anew for others",
        "The name belongs to other people's objects by now.",
        "held",
        "Much of the dataset seems to be gone",
        change=lambda cloud: made_anew(cloud, "a/new.txt", "other.jpg", "z/z"),
    ),
    Outage(
        "folder skipped",
        "The listing leaves out a folder, as if it were not there.",
        "held",
        "Much of the dataset seems to be gone: 110 of",
        change=lambda cloud: skipped(cloud, "b/"),
    ),
    Outage(
        "some skipped",
        "The listing leaves out fewer objects than the brake lets go, which are there when asked for.",
        "warned",
        r"The bucket's listing left out \d+ object\(s\) that are there",
        change=lambda cloud: skipped(cloud, "b/00"),
    ),
    Outage(
        "last too early",
        "A page says that it is the last, and is not; nothing tells this from a deletion.",
        "held",
        "Much of the dataset seems to be gone",
        on(lambda number: number == 2, page_as(lambda _, page: replace(page, token=None))),
    ),
    Outage(
        "first page is the only one",
        "Every listing ends after one page.",
        "held",
        "Much of the dataset seems to be gone",
        always(page_as(lambda _, page: replace(page, token=None))),
    ),
    *[
        Outage(
            f"empty last page after {pages}",
            "After some pages comes an empty one that says it is the last.",
            "held",
            "Much of the dataset seems to be gone",
            after(pages, page_as(empty)),
        )
        for pages in (1, 2)
    ],
]

REFUSED = [
    *[
        Outage(
            f"denied after page {pages}",
            "The right to list is taken away in the middle.",
            "failed",
            "may not list",
            after(pages, refused("denied")),
        )
        for pages in (0, 1, 3, 8)
    ],
    *[
        Outage(
            f"no bucket after page {pages}",
            "The bucket is deleted in the middle.",
            "failed",
            "There is no (bucket|container)",
            after(pages, refused("no bucket")),
        )
        for pages in (0, 4)
    ],
    Outage(
        "expired for good",
        "The token ends in the middle, and no other is to be had.",
        "failed",
        "Renew them|has expired",
        after(3, refused("expired")),
    ),
    Outage(
        "expired once",
        "The token ends in the middle, and asked again there is another.",
        "well",
        bend=for_a_while(4, 1, refused("expired")),
    ),
    Outage(
        "clocks apart",
        "The store's clock is hours away from ours.",
        "failed",
        "clock and ours differ",
        after(2, refused("skewed")),
        clouds=XML,
    ),
    *[
        Outage(
            f"sent elsewhere with {status}",
            "Requests are sent to another address, as after a move to another region.",
            "failed",
            "elsewhere",
            after(2, says(status, Location="http://127.0.0.1:1/elsewhere")),
        )
        for status in (301, 302, 307, 308)
    ],
    *[
        Outage(
            f"{kind} for ever",
            "The store keeps saying that it cannot just now.",
            "failed",
            "busy or failing",
            after(3, refused(kind)),
        )
        for kind in ("busy", "failing")
    ],
    *[
        Outage(
            f"{kind} for a while",
            "The store says some times that it cannot just now, then it can.",
            "well",
            bend=for_a_while(3, 4, refused(kind)),
        )
        for kind in ("busy", "failing")
    ],
    Outage(
        "failure with 200",
        "The answer begins with 200 and is an error.",
        "failed",
        "busy or failing",
        after(2, says(200, b'<?xml version="1.0"?>\n<Error><Code>InternalError</Code></Error>')),
        clouds=("s3",),
    ),
    Outage(
        "refusal with 200",
        "The answer is 200 and a document that refuses.",
        "failed",
        "refused a request",
        after(2, says(200, b"<Error><Code>AccessDenied</Code></Error>")),
        clouds=("s3",),
    ),
]

DAMAGED = [
    *[
        Outage(
            f"cut off after page {pages}",
            "The page ends in the middle, and its length says so.",
            "failed",
            NO_PAGE,
            after(pages, body_as(lambda body: body[: len(body) * 2 // 3])),
        )
        for pages in (0, 5)
    ],
    Outage(
        "half a page for ever",
        "Content-Length promises more than comes, then the connection ends.",
        "failed",
        "did not answer",
        after(3, half_a_page),
    ),
    Outage(
        "half a page once",
        "A page breaks off, and comes whole when asked again.",
        "well",
        bend=for_a_while(3, 1, half_a_page),
    ),
    Outage(
        "reset for ever",
        "The connection is reset in the middle of a page.",
        "failed",
        "did not answer",
        after(2, reset),
    ),
    Outage("reset for a while", "The connection is reset some times.", "well", bend=for_a_while(4, 3, reset)),
    Outage("hangs", "The store takes the request and says nothing.", "failed", "did not answer", after(3, hangs)),
    Outage(
        "hangs within a page",
        "The store begins to answer, and stops.",
        "failed",
        "did not answer",
        after(3, hangs_in_the_body),
    ),
    Outage("hangs once", "The store leaves one request without an answer.", "well", bend=for_a_while(4, 1, hangs)),
    Outage(
        "log-in page", "A portal answers 200 and asks to sign in.", "failed", NO_PAGE, after(1, says(200, LOGIN_PAGE))
    ),
    Outage(
        "neat log-in page",
        "The portal's page is even well-formed.",
        "failed",
        f"{NO_PAGE}|answered a listing with <html>",
        always(says(200, NEAT_LOGIN_PAGE)),
    ),
    Outage(
        "packed by a proxy",
        "A proxy packs the answer though nobody asked.",
        "failed",
        NO_PAGE,
        after(2, body_as(gzip.compress, **{"Content-Encoding": "gzip"})),
    ),
    Outage(
        "says not whether more follows",
        "The mark that tells the last page is missing.",
        "failed",
        "whether more objects follow",
        after(2, body_as(lambda body: body.replace(b"IsTruncated", b"Other").replace(b"NextMarker", b"Other"))),
        clouds=XML,
    ),
    Outage(
        "says not how to go on",
        "More follows, but there is no token.",
        "failed",
        "not how to ask",
        after(2, body_as(lambda body: body.replace(b"ContinuationToken", b"Other"))),
        clouds=("s3",),
    ),
    Outage(
        "sizes missing",
        "The objects have no size.",
        "failed",
        "size",
        after(
            2,
            body_as(
                lambda body: (
                    body.replace(b"<Size>", b"<S>")
                    .replace(b"</Size>", b"</S>")
                    .replace(b"Content-Length>", b"Length>")
                    .replace(b'"size"', b'"s"')
                )
            ),
        ),
    ),
]

ASTRAY = [
    Outage(
        "empty and more for ever",
        "Pages are empty and say that more follow, without an end.",
        "failed",
        "sends none",
        after(2, page_as(empty_with_more)),
    ),
    Outage(
        "empty and more for a while",
        "Some pages are empty and say that more follow, which is true.",
        "well",
        bend=for_a_while(3, 30, page_as(empty_with_more)),
    ),
    Outage(
        "the same token again",
        "A page's token asks for the same page; each try gets a page further.",
        "well",
        bend=always(page_as(same_token)),
    ),
    Outage(
        "a larger circle",
        "The last page says that the second follows.",
        "failed",
        "repeats a continuation token",
        always(page_as(back_to_the_second_page)),
    ),
    Outage(
        "outside the prefix",
        "Objects of another folder are listed.",
        "failed",
        "outside the prefix",
        after(2, page_as(lambda _, page: replace(page, keys=[f"out/{key}" for key in page.keys]))),
    ),
    Outage(
        "the prefix is forgotten",
        "The store lists the whole bucket.",
        "failed",
        "outside the prefix",
        always(page_as(lambda _, page: replace(page, keys=["elsewhere/x", *page.keys]))),
    ),
    Outage(
        "order within pages",
        "Each page is backwards.",
        "well",
        bend=always(page_as(lambda _, page: replace(page, keys=page.keys[::-1]))),
    ),
    Outage("order without case", "A and a are neighbours.", "well", change=lists_by_letters_without_case),
    Outage("order by folders", "Folders are listed one after the other.", "well", change=lists_by_folders),
    Outage("order backwards", "The last comes first.", "well", change=lists_backwards),
    Outage(
        "keys twice",
        "Each key is there twice.",
        "well",
        bend=always(page_as(lambda _, page: replace(page, keys=[key for key in page.keys for _ in "ab"]))),
    ),
    Outage(
        "pages overlap",
        "A page begins with the last key of the one before.",
        "well",
        bend=always(page_as(lambda asked, page: replace(page, keys=[*filter(None, [asked.after]), *page.keys]))),
    ),
]

OUTAGES = [*EMPTY, *REFUSED, *DAMAGED, *ASTRAY]
