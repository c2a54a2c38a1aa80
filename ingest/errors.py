"""What can go wrong with the world, named by what the caller should do.

A bad line is ordinary input and never an exception: see `ingest.core.commands.Failure`.
"""


class IngestError(Exception):
    """Any failure of ours. Its text is one clear sentence for the person who reads it."""


class ConfigError(IngestError):
    """Stop: a person must change a setting. `problems` holds one sentence for each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class TransientError(IngestError):
    """The world did not answer, or the object is broken: running again is safe, and may help."""


class UploadRefused(IngestError):
    """The file that a person sends cannot be taken as it is: the text says why. Sending it again will not help."""


class TooLarge(UploadRefused):
    """It is over a limit of `[uploads]`, as it is or unpacked."""


class StaleRedrive(IngestError):
    """Somebody fixed one of these lines in the meantime: look again at what is open."""


class ObjectGone(TransientError):
    """The object is no longer there, or no longer the version that was listed: nothing to load."""


class ListingDoubted(TransientError):
    """A listing that was read as far as it went, and proves nothing about what it does not show."""

    def __init__(self, sentence: str, *, cut: bool) -> None:
        super().__init__(sentence)
        self.cut = cut  # there is more that was not seen


class NotEmpty(IngestError):
    """A warehouse that was to be filled holds rows already."""
