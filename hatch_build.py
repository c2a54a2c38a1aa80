"""A wheel that holds the native core is for one platform: `LANDFALL_WHEEL=native`, see `make wheel`."""

import os
import sysconfig
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the core into the wheel, and says so in its name. Without it the wheel is for any platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the wheel is made."""
        if version == "standard" and os.environ.get("LANDFALL_WHEEL") == "native":
            build_data["artifacts"].append("ingest/core/_native.so")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
