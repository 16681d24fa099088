"""Comparisons that take moments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from interlocking_backprop.cli.main import main
from interlocking_backprop.training.config import TrainConfig

NET = ["--architecture", "4,2", "--aux-architecture", "gbpl_fc", "--batch-size", "200", "--device", "cpu"]


def arguments(out: Path, *flags: str, profile_steps: int = 0) -> list[str]:
    return ["--out", str(out), *NET, "--threads", "1", "--profile-steps", str(profile_steps), *flags]


def compare(out: Path, *flags: str, profile_steps: int = 0) -> int:
    return main(["compare", *arguments(out, *flags, profile_steps=profile_steps)])


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def results(out: Path) -> list[dict[str, Any]]:
    """The runs, without what the clock says."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(out / "runs.jsonl")]


def train_config(**changes: Any) -> TrainConfig:
    fields = {"components": 3, "architecture": "4,2", "aux_architecture": "gbpl_fc", "batch_size": 40, "device": "cpu"}
    return TrainConfig().replace(**{**fields, **changes})
