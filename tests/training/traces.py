"""What a trace of training steps holds."""

from __future__ import annotations

import gzip
import json
from pathlib import Path


def traced_names(path: Path) -> list[str]:
    """The names of all spans of time in a trace file, in the Trace Event Format that Chrome and Perfetto read."""
    with gzip.open(path) as file:
        return [event["name"] for event in json.load(file)["traceEvents"] if event["ph"] == "X"]
