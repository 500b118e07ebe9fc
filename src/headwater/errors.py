"""The errors a person can act on, each with the HTTP status the SDK knows.

HeadwaterError
├── BadRequest 400         the request is malformed, or names something that cannot be
├── Unauthorized 401       we do not know who calls
├── Forbidden 403          we know, and may not
├── NotFound 404           no such thing, or none that the caller may know of
├── Conflict 409           it exists already, or is in use
├── FailedDependency 424   an outside service (a bucket) said no
│   ├── StoreDenied            the credentials may not do this
│   └── StoreMissing           no such object or bucket
└── Unavailable 503        try again: an outside service is down, slow or throttling
"""


class HeadwaterError(Exception):
    """`str(error)` is a sentence that says what, which one, and what would be right."""

    status = 500
    operation: str | None = None  # of an outside service that refused, as its documentation names it
    code: str | None = None  # what it said


class BadRequest(HeadwaterError):
    status = 400


class Unauthorized(HeadwaterError):
    status = 401


class Forbidden(HeadwaterError):
    status = 403


class NotFound(HeadwaterError):
    status = 404


class Conflict(HeadwaterError):
    status = 409


class FailedDependency(HeadwaterError):
    status = 424


class StoreDenied(FailedDependency):
    pass


class StoreMissing(FailedDependency):
    pass


class Unavailable(HeadwaterError):
    status = 503
