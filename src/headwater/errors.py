"""The errors a person can act on, each with the HTTP status the SDK knows.

HeadwaterError
├── BadRequest 400         the request is malformed, or names something that cannot be
│   └── RangeNotSatisfiable 416  there is no byte in the range; players and curl know that status
├── Unauthorized 401       we do not know who calls
├── Forbidden 403          we know, and may not
│   └── QuotaExceeded          not before there is room for it; the SDK knows 403, and not 402
├── NotFound 404           no such thing, or none that the caller may know of
├── QueryTooSlow 408       it was stopped; the sentence says what would make it quick; the SDK repeats a 503, not this
├── Conflict 409           it exists already, or is in use
├── TooManyRequests 429    too often; the sentence says when again
├── FailedDependency 424   an outside service (a bucket) said no
│   ├── StoreDenied            the credentials may not do this
│   ├── StoreMissing           no such object or bucket
│   └── StoreChanged           the object is not the one that was meant
└── Unavailable 503        try again: an outside service is down, slow or throttling
"""


class HeadwaterError(Exception):
    """`str(error)` is a sentence that says what, which one, and what would be right."""

    status = 500
    operation: str | None = None  # of an outside service that refused, as its documentation names it
    code: str | None = None  # what it said
    region: str | None = None  # where it said that the bucket is
    retry_after_s: int | None = None  # when the same request may do better


class BadRequest(HeadwaterError):
    status = 400


class RangeNotSatisfiable(BadRequest):
    status = 416

    def __init__(self, message: str, *, size_bytes: int | None = None) -> None:
        super().__init__(message)
        self.size_bytes = size_bytes  # of the whole, where that is known


class Unauthorized(HeadwaterError):
    status = 401


class Forbidden(HeadwaterError):
    status = 403


class QuotaExceeded(Forbidden):
    pass


class NotFound(HeadwaterError):
    status = 404


class QueryTooSlow(HeadwaterError):
    status = 408


class Conflict(HeadwaterError):
    status = 409


class FailedDependency(HeadwaterError):
    status = 424


class StoreDenied(FailedDependency):
    pass


class StoreMissing(FailedDependency):
    pass


class StoreChanged(FailedDependency):
    pass


class TooManyRequests(HeadwaterError):
    status = 429

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(HeadwaterError):
    status = 503
    retry_after_s = 2
