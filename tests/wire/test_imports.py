"""Storage ids, in every spelling that clients have sent since 2022."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.wire.imports import keys


@pytest.mark.parametrize(
    "told",
    [
        "cams:in/2024/y.jpg",  # 1.119 and later, told the bucket
        "in:2024/y.jpg",  # … told only the key: its first folder is taken for the bucket
        "cams/in/2024/y.jpg",  # up to 1.118
        "in/2024/y.jpg",
        "2024/y.jpg",  # below the driver's folder
        "2024:y.jpg",
        "/in/2024/y.jpg",
        "//in/2024/y.jpg",
        "/2024/y.jpg",
        "s3://cams/in/2024/y.jpg",
        "external://cams/in/2024/y.jpg",
        "external://s3://cams/in/2024/y.jpg",
        "external://gs://cams//in/2024/y.jpg",
        "cams:/in/2024/y.jpg",
        "cams:2024/y.jpg",
    ],
)
def test_all_spellings_of_one_object_mean_it(told: str) -> None:
    assert "2024/y.jpg" in keys(told, bucket="cams", prefix="in/")


def test_the_likeliest_comes_first() -> None:
    assert keys("cams:in/y.jpg", bucket="cams", prefix="in/")[0] == "y.jpg"
    assert keys("in:y.jpg", bucket="cams", prefix="in/")[0] == "y.jpg"
    assert keys("a/b.jpg", bucket="cams", prefix="")[0] == "a/b.jpg"
    assert keys("a:b.jpg", bucket="cams", prefix="") == ["a/b.jpg", "a:b.jpg"]
    assert keys("other:b.jpg", bucket="cams", prefix="") == ["other/b.jpg", "other:b.jpg"]


@pytest.mark.parametrize(
    "key", ["a:b.jpg", "a//b.jpg", "/lead.jpg", "cams/x.jpg", "s3:/x", "a b+c%20ä.jpg", ":", "::a"]
)
@pytest.mark.parametrize("prefix", ["", "in/", "in/deep/"])
def test_a_key_with_its_bucket_is_found_however_odd(key: str, prefix: str) -> None:
    for sign in ":/":
        assert key in keys(f"cams{sign}{prefix}{key}", bucket="cams", prefix=prefix)


@given(st.text(min_size=1, max_size=12, alphabet="a:/b."), st.sampled_from(["", "a/", "b/a/"]))
def test_few_keys_are_tried_and_none_is_empty(told: str, prefix: str) -> None:
    found = keys(told, bucket="b", prefix=prefix)
    assert len(found) == len(set(found)) <= 24
    assert all(found)


def test_a_key_that_is_written_as_in_a_url_is_tried_last() -> None:
    assert keys("in/a+b%20%C3%A4.jpg", bucket="cams", prefix="in/")[-1] == "in/a b ä.jpg"
    found = keys("cams:in/a+b%20%C3%A4.jpg", bucket="cams", prefix="in/")
    assert found[0] == "a+b%20%C3%A4.jpg"
    assert found.index("a b ä.jpg") > max(found.index(key) for key in found if "%" in key)
