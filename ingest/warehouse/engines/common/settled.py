"""Settings that all loaders of a warehouse on many hosts have to agree on, since they say whom a name means."""

from collections.abc import Mapping
from dataclasses import replace

from ingest.errors import ConfigError
from ingest.settings import Source

_NAMES_SHOWN = 5


def settings(ignored_identities: frozenset[str], sources: Mapping[str, Source]) -> dict[str, str]:
    """What has to be agreed on, by its name in ingest.toml; empty where it is as it would be unsaid."""
    naming = {}
    for name, source in sources.items():
        usual = replace(source, people_space=None, match=None).naming(source.format)
        both = zip(source.naming(source.format), usual, strict=True)
        told = ("" if own == by_itself else own for own, by_itself in both)
        naming[f"people_space and match of source {name}"] = "\t".join(told)
    return {"ignored_identities": "\n".join(sorted(ignored_identities))} | naming


def not_settled(warehouse: str, there: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Those of our settings that nobody has settled yet. Raises ConfigError where others have settled otherwise."""
    if differing := sorted(name for name, value in own.items() if there.get(name, value) != value):
        told = "; ".join(f"{name} is {_shown(there[name])} there, {_shown(own[name])} here" for name in differing)
        raise ConfigError(
            f"{warehouse} was loaded under other settings: {told}. Names would not mean the same persons. Set them"
            " here as other loaders have them; or, to change them for all, set them everywhere, then run"
            " `ingest rematch`."
        )
    return {name: value for name, value in own.items() if name not in there}


def _shown(settled: str) -> str:
    """A value as `settings` has it, for a person."""
    if "\t" in settled:
        return " and ".join(part or "the default" for part in settled.split("\t"))
    names = settled.split("\n")
    return ", ".join(names[:_NAMES_SHOWN]) + f" and {len(names) - _NAMES_SHOWN} more" * (len(names) > _NAMES_SHOWN)
