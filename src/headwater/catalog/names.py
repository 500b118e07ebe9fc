"""Names that people give to things."""

from headwater.errors import BadRequest


def checked_name(name: str, noun: str) -> str:
    """Raises BadRequest for a name that is empty, over-long or unprintable."""
    name = name.strip()
    if not name or len(name) > 255 or not name.isprintable():
        article = "an" if noun[0] in "aeiou" else "a"
        raise BadRequest(f"The name of {article} {noun} has 1 to 255 printable characters, not {name[:60]!r}.")
    return name
