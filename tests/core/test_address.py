"""What a person names, and what is said where that is nothing."""

from pathlib import Path

import pytest

from ingest.core.address import meant, split_address
from ingest.errors import ConfigError

POINT = "arn:aws:s3:us-east-1:123456789012:accesspoint/my-ap"
OUTPOST = "arn:aws:s3-outposts:us-west-2:123456789012:outpost/op-01/accesspoint/my-ap"


@pytest.mark.parametrize(
    ("address", "bucket", "key"),
    [
        ("s3://acme/l/a.json", "acme", "l/a.json"),
        ("s3://acme/l/", "acme", "l/"),
        ("s3://acme", "acme", ""),
        ("s3://acme//a.json", "acme", "/a.json"),
        ("s3://acme/a\n?#b.json", "acme", "a\n?#b.json"),
        (f"s3://{POINT}/l/a.json", POINT, "l/a.json"),
        (f"s3://{POINT}", POINT, ""),
        (f"s3://{POINT.replace('point/', 'point:')}/a", POINT.replace("point/", "point:"), "a"),
        (f"s3://{OUTPOST}/l/a.json", OUTPOST, "l/a.json"),
        ("s3://arn:aws:s3::123456789012:accesspoint/mfz.mrap/a", "arn:aws:s3::123456789012:accesspoint/mfz.mrap", "a"),
        ("-", "file", "-"),
        ("/tmp/a.json", "file", "/tmp/a.json"),
        ("a.json", "file", str(Path.cwd() / "a.json")),
    ],
)
def test_addresses(address: str, bucket: str, key: str) -> None:
    assert split_address(address) == (bucket, key)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("s3://", "names no bucket"),
        ("s3:///a", "names no bucket"),
        ("s3:/acme/a", "Write s3://bucket/key"),
        ("arn:aws:s3:::acme/a", "Write s3://bucket/key"),
        ("s3a://acme/a", "Write s3://bucket/key"),
        ("https://acme.s3.amazonaws.com/a", "Write s3://bucket/key, or a path"),
        ("file:///tmp/a.json", "Write the path alone"),
    ],
)
def test_what_is_no_address(address: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        split_address(address)


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("s3://acme/l/a.json?versionId=x", "leave out what begins with ?"),
        ("s3://acme/l/*.json", "with a slash"),
        ("s3://acme/l/a.json", ""),
    ],
)
def test_what_may_have_been_meant(address: str, hint: str) -> None:
    assert hint in meant(address)
    assert bool(hint) == bool(meant(address))
