"""What may be read for somebody at a form or a page, which are no place to reach into any bucket or disk.

Decides: buckets of sources, the one for uploads, and those that an operator allowed; on this machine, only what lies in
         the folders of sources, wherever links in a path lead.
"""

import os

from ingest.core.source import LOCAL_BUCKET
from ingest.settings import Settings


def why_unreadable(settings: Settings, bucket: str, key: str) -> str | None:
    """A sentence for those who ask for an object, or for all below a prefix; None if it may be read."""
    remedy = "Let an operator add it to allowed_buckets in ingest.toml."
    if bucket in settings.allowed_buckets:
        return None
    sources = settings.sources.values()
    if bucket == LOCAL_BUCKET:
        if canonical(settings, key):
            return None
        return "Of this machine's disk nothing is read from here but the folders of sources."
    if bucket in {settings.uploads_bucket, *(one.bucket for one in sources)}:
        return None
    return f"The bucket {bucket} may not be read from here. {remedy}"


def canonical(settings: Settings, path: str) -> str | None:
    """The one name of a path of this machine that lies in a source's folder, wherever links led; None: in no folder."""
    real = os.path.realpath(path)
    for source in settings.sources.values():
        folder = os.path.realpath(source.prefix) if source.bucket == LOCAL_BUCKET else None
        if folder and os.path.commonpath((real, folder)) == folder:
            below = os.path.relpath(real, folder)
            return os.path.normpath(os.path.join(os.path.abspath(source.prefix), below))  # noqa: PTH100, PTH118
    return None
