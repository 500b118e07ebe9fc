"""What a decoder process may send to its parent."""

import pytest

from headwater.media.answers import LENGTHS, pack, unpack, unpack_lengths
from headwater.media.records import ImageFacts, Prepared, Problem, Thumbnail

FACTS = ImageFacts("image/jpeg", 30, 20, 3, {"Make": "Ä", "FNumber": 2.8, "Orientation": 1})


@pytest.mark.parametrize(
    "prepared",
    [
        Prepared(FACTS, Thumbnail(b"\x00\xff", "image/webp", 3, 2)),
        Prepared(FACTS, problem=Problem("truncated", "The file ends early.")),
        Prepared(problem=Problem("empty", "The file has no bytes.")),
    ],
)
def test_an_answer_arrives_as_it_was_sent(prepared):
    sent = pack(prepared)
    text_bytes, content_bytes = unpack_lengths(sent[: LENGTHS.size])
    text = sent[LENGTHS.size : LENGTHS.size + text_bytes]
    content = sent[LENGTHS.size + text_bytes :]
    assert len(content) == content_bytes
    assert unpack(text, content) == prepared


@pytest.mark.parametrize("lengths", [(2**31, 0), (0, 2**31)])
def test_an_answer_too_long_to_be_true_is_refused(lengths):
    with pytest.raises(ValueError, match="2147483648"):
        unpack_lengths(LENGTHS.pack(*lengths))


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"facts": {"x": 1}, "thumbnail": null, "problem": null}'])
def test_an_answer_of_another_shape_is_refused(text):
    with pytest.raises((ValueError, KeyError, TypeError)):
        unpack(text, b"")
