"""Whose request it is, and with which settings the intake refuses to start."""

from dataclasses import replace
from typing import Any

import pytest

from ingest.errors import ConfigError
from ingest.intake.keys import Keys, hashed, keys_of, new_key
from ingest.settings import Settings, Source

OURS = Source(name="shop", bucket="acme-events", prefix="landing/shop/", intake_keys=(hashed(b"old"), hashed(b"new")))
OTHER = Source(name="app", bucket="acme-events", prefix="landing/app/", intake_keys=(hashed(b"other"),))


def settings(*sources: Source, **more: Any) -> Settings:
    return Settings(warehouse_url="duckdb:///x", sources={source.name: source for source in sources}, **more)


def test_new_keys_are_long_and_differ() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(len(key) >= 43 and key.isascii() and not set(key) & set(" :/+=&?#%\"'\\") for key in keys)
    assert hashed(b"x") == "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"


def test_a_key_belongs_to_one_source() -> None:
    keys = Keys([OURS, OTHER])
    for given in (b"old", b"new"):
        assert keys.source([given], "kissmetrics") == OURS
        assert keys.source([b"x", given], "kissmetrics", "shop") == OURS
        assert keys.source([given], "kissmetrics", "app") is None
        assert keys.source([given], "woopra") is None
    assert keys.source([b"other"], "kissmetrics") == OTHER
    for wrong in ([], [b""], [b"ol"], [hashed(b"old").encode()], [bytes.fromhex(hashed(b"old")[7:])]):
        assert keys.source(wrong, "kissmetrics") is None


def test_sound_settings() -> None:
    keys_of(settings(OURS, OTHER, replace(OURS, name="plain", prefix="plain/", intake_keys=())))
    keys_of(settings(replace(OURS, pattern="intake-*.json")))
    keys_of(
        settings(replace(OURS, pattern="*.json"), replace(OTHER, prefix="landing/", pattern="a*.json", intake_keys=()))
    )
    keys_of(settings(replace(OURS, bucket="file", prefix="/srv/landing")))


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ([], "No source has intake_keys"),
        ([replace(OURS, intake_keys=())], "No source has intake_keys"),
        ([OURS, replace(OTHER, intake_keys=(hashed(b"new"),))], '"app": it has an intake_key of source "shop"'),
        ([replace(OURS, pattern="accounts.json")], 'with pattern = "accounts.json" it would not take'),
        ([replace(OURS, archive_prefix="landing/shop/intake/")], "with a prefix that the program writes to it would"),
        ([OTHER, replace(OURS, report_prefix="landing/app/intake/")], '"app": with a prefix that the program writes'),
        ([replace(OURS, pattern="*.json"), replace(OTHER, prefix="", pattern="intake*")], '"app": it would take'),
    ],
)  # fmt: skip
def test_what_cannot_be_served(sources: list[Source], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        keys_of(settings(*sources))
    (problem,) = (problem for problem in refused.value.problems if said in problem)
    assert problem.endswith((".", "`."))


def test_every_problem_is_told() -> None:
    with pytest.raises(ConfigError) as refused:
        keys_of(settings(replace(OURS, pattern="x.json"), replace(OTHER, intake_keys=OURS.intake_keys)))
    assert len(refused.value.problems) == 3  # both keys are shared
