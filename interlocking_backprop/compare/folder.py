"""The folder of a comparison: one at a time works in it, and always with the same settings.

comparison.json      settings, and what is known of the task
runs/, tuning/       a folder for each run
tuning.jsonl         the trials of each scheme, and which of them was chosen
profiles.json        what a step costs here
estimates.json       what it would take with a device per component
report.html …        the report
"""

from __future__ import annotations

import fcntl
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from interlocking_backprop.common.atomic_files import write_text
from interlocking_backprop.common.folders import check_folder
from interlocking_backprop.common.json_files import read_json
from interlocking_backprop.compare.config import CompareConfig
from interlocking_backprop.scheme.phases import files_in_phases
from interlocking_backprop.scheme.text import parse_scheme
from interlocking_backprop.training.config import RESUMABLE_FIELDS

# What may differ from one start to the next: the grid, and what changes no run.
_FREE = RESUMABLE_FIELDS.union(
    ("schemes", "components", "seeds", "jobs", "retry_failed"),
    ("profile_steps", "pipeline_microbatches", "link_bandwidth", "link_latency"),
)


class ComparisonFolder:
    """A comparison on disk.

    Args:
        config: of the comparison; its ``out`` is the folder.
    """

    def __init__(self, config: CompareConfig) -> None:
        self.path = config.out.absolute()
        self._config = config

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps others out of the folder.

        Raises:
            ValueError: if another comparison is at work in it, or it cannot be written.
        """
        check_folder("--out", self._config.out)
        if (self.path / "config.json").exists():
            raise ValueError(f"--out is {self._config.out}, which holds a run of `ibp train`; choose another folder.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("w")
        except OSError as error:
            raise ValueError(f"--out is {self._config.out}; expected a folder that can be written ({error}).") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"another comparison is at work in {self._config.out}; wait for it, or choose another --out."
                ) from None
            yield

    def check_settings(self) -> None:
        """Compares the settings with those that the comparison was begun with.

        Raises:
            ValueError: naming the first flag that differs.
        """
        before, now = self.read("comparison.json"), self._config.settings()
        if before is None:
            return
        for name, value in before["settings"].items():
            if name not in _FREE and now.get(name) != value:
                raise ValueError(
                    f"--{name.replace('_', '-')} is {now.get(name)}, but the comparison in {self._config.out} was "
                    f"begun with {value}; leave the flag as it was, or choose another --out."
                )
        for scheme, matrix in self._matrices().items():
            if before["matrices"].get(scheme, matrix) != matrix:
                raise ValueError(
                    f"scheme file {scheme} has changed since the comparison in {self._config.out} was begun; give the "
                    "new matrix a name of its own, or choose another --out."
                )

    def facts(self) -> dict[str, Any] | None:
        """What is known of the task, if it has been looked at for all numbers of components."""
        before = self.read("comparison.json")
        if before is None or not set(self._config.components) <= set(before["facts"]["components"]):
            return None
        return dict(before["facts"])

    def begin(self, facts: dict[str, Any]) -> None:
        """Writes down what the comparison is."""
        before = self.read("comparison.json") or {"matrices": {}}
        matrices = before["matrices"] | self._matrices()
        content = before | {"settings": self._config.settings(), "matrices": matrices, "facts": facts}
        write_text(self.path / "comparison.json", json.dumps(content, indent=1) + "\n")

    def resolved(self, scheme: str, k: int) -> str:
        """A scheme for K components with delays as numbers: those with which the comparison was begun."""
        saved = self._delays().get(scheme, {}).get(str(k))
        return self._config.resolved(scheme, k) if saved is None else str(saved)

    def delays(self) -> dict[str, str]:
        """By scheme and K the text with least delays written out, where a scheme asks for such."""
        pairs = itertools.product(self._config.schemes, self._config.components)
        found = {(scheme, k): self.resolved(scheme, k) for scheme, k in pairs}
        return {f"{scheme}, K = {k}": text for (scheme, k), text in found.items() if text != scheme}

    def keep_delays(self) -> dict[str, str]:
        """Writes down the delays of all schemes, for starts to come; returns what `delays` does."""
        content = self.read("comparison.json")
        assert content is not None
        kept = self._delays()
        for scheme, k in itertools.product(self._config.schemes, self._config.components):
            if (text := self.resolved(scheme, k)) != scheme:
                kept.setdefault(scheme, {})[str(k)] = text
        if kept != content.get("delays", {}):
            write_text(self.path / "comparison.json", json.dumps(content | {"delays": kept}, indent=1) + "\n")
        return self.delays()

    def _delays(self) -> dict[str, dict[str, str]]:
        return dict((self.read("comparison.json") or {}).get("delays", {}))

    def read(self, name: str) -> dict[str, Any] | None:
        """An object in a JSON file of the folder; None if there is none.

        Raises:
            ValueError: if it cannot be read.
        """
        path = self.path / name
        if not path.exists():
            return None
        content = read_json(path, "what an earlier start wrote; remove it, or choose another --out")
        parts = ("settings", "matrices", "facts") if name == "comparison.json" else ()
        is_whole = isinstance(content, dict) and all(isinstance(content.get(part), dict) for part in parts)
        if not is_whole or (parts and not {"metric", "maximize", "n_steps", "components"} <= content["facts"].keys()):
            raise ValueError(f"{path} is not what an earlier start wrote; remove it, or choose another --out.")
        return dict(content)

    def _matrices(self) -> dict[str, Any]:
        """The matrices of schemes that are files, which may change."""
        names = sorted({name for scheme in self._config.schemes for name in files_in_phases(scheme)})
        found = {}
        for name in names:
            fields = parse_scheme(name, self._config.components[0]).to_fields()
            found[name] = [fields["matrix"], fields["delayed"]] if "delayed" in fields else fields["matrix"]
        return found
