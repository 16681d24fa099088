"""Numbers as people read them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from interlocking_backprop.compare.statistics import CONFIDENCE

NOTHING = "\u2013"
times = "{:.2f} \u00d7".format  # a ratio
LEVEL = f"{100 * CONFIDENCE:g} %"


class Metric(NamedTuple):
    """How a score is shown.

    Attributes:
        name: as the data has it, e.g. "bits_per_byte".
        maximize: whether more is better.
    """

    name: str
    maximize: bool

    @property
    def is_share(self) -> bool:
        """Whether it is shown in per cent."""
        return "accuracy" in self.name

    @property
    def words(self) -> str:
        """The name in a sentence."""
        return self.name.replace("_", " ")

    @property
    def heading(self) -> str:
        """The title of a column."""
        return f"{self.words.capitalize()}{' (%)' if self.is_share else ''}"

    @property
    def label(self) -> str:
        """The title of an axis."""
        return self.words + (" (%)" if self.is_share else "" if self.maximize else " (less is better)")

    @property
    def factor(self) -> float:
        """The factor from a score to the number that is shown."""
        return 100.0 if self.is_share else 1.0

    def number(self, score: float, sign: str = "") -> str:
        """A score, or with sign="+" a difference, without its unit."""
        return minus(f"{score * self.factor:{sign}.{2 if self.is_share else 3}f}")

    def difference(self, scores: float, sign: str = "+") -> str:
        """A difference with its unit."""
        return self.number(scores, sign) + (" points" if self.is_share else "")

    def spread(self, mean: float, std: float) -> str:
        """Mean ± standard deviation, as far as they are known."""
        return known(mean, self.number) + ("" if pd.isna(std) else f" ± {self.number(std)}")


def known(value: Any, show: Callable[[Any], str]) -> str:
    """A value as a function shows it; a dash if it is missing."""
    return NOTHING if pd.isna(value) else show(value)


def minus(text: str) -> str:
    """With a minus sign for the hyphen, and zero without a sign."""
    if text[:1] in ("-", "+") and not text.strip("+-0."):
        return text[1:]
    return text.replace("-", "\u2212")


def significant(value: float, digits: int = 3) -> str:
    """A number with so many digits that count, never in exponents."""
    exponent = int(f"{value:.{digits - 1}e}".split("e")[1]) if value else digits
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def seconds(value: float, std: float | None = None) -> str:
    """A time in the unit that suits it, with its standard deviation in the same unit."""
    units = ((1e6, "µs", 999.5), (1e3, "ms", 999.5), (1.0, "s", 6000.0), (1 / 3600, "h", float("inf")))
    factor, unit = next((factor, unit) for factor, unit, most in units if value * factor < most)
    spread = "" if std is None else f" ± {significant(std * factor, 2)}"
    return f"{significant(value * factor)}{spread} {unit}"


def size(n_bytes: float) -> str:
    """A number of bytes, in the unit that suits it."""
    for unit in ("B", "KiB", "MiB"):
        if n_bytes < 999.5:
            return f"{significant(n_bytes)} {unit}"
        n_bytes /= 1024
    return f"{significant(n_bytes)} GiB"


def rate(per_second: float) -> str:
    """A number of samples per second."""
    return f"{significant(per_second)}/s"


def count(number: int, thing: str) -> str:
    """A number of things."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def setting(value: object) -> str:
    """The value of a flag or of a part of the environment."""
    if isinstance(value, dict):
        value = [f"{key}: {setting(part)}" for key, part in value.items()]
    if isinstance(value, (list, tuple)):
        return ", ".join(map(setting, value)) or "none"
    return "none" if value is None or value == "" else str(value)


def glue(text: str) -> str:
    """A sentence whose numbers are not torn from their names and units at the ends of lines."""
    text = re.sub(r"\b([A-Zn]) = (?=\d)", "\\1\u00a0=\u00a0", text)
    return re.sub("(?<=\\d) (?=%|\u00d7|points|samples/s)", "\u00a0", text)


def few(names: Sequence[object], most: int = 4) -> str:
    """Names in a sentence, and how many more there are."""
    *first, last = map(str, names if len(names) <= most + 1 else [*names[:most], f"{len(names) - most} more"])
    return f"{', '.join(first)} and {last}" if first else last
