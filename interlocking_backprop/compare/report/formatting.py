"""Numbers as people read them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from interlocking_backprop.compare.statistics import CONFIDENCE, Gap, Spread

NOTHING = "\u2013"
LEVEL = f"{100 * CONFIDENCE:g} %"


@dataclass(frozen=True)
class Metric:
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
        return self.name.replace("_", " ")

    @property
    def heading(self) -> str:
        """Of a column."""
        return f"{self.words.capitalize()}{' (%)' if self.is_share else ''}"

    @property
    def label(self) -> str:
        """Of an axis."""
        return f"{self.words} (%)" if self.is_share else f"{self.words}{'' if self.maximize else ' (less is better)'}"

    @property
    def factor(self) -> float:
        """From a score to the number that is shown."""
        return 100.0 if self.is_share else 1.0

    @property
    def decimals(self) -> int:
        return 2 if self.is_share else 3

    @property
    def unit(self) -> str:
        """Of a difference, with a space before it."""
        return " points" if self.is_share else ""

    def number(self, score: float, sign: str = "") -> str:
        """A score, or with sign="+" a difference, without its unit."""
        return minus(f"{score * self.factor:{sign}.{self.decimals}f}")

    def spread(self, value: Spread, *, unit: bool = False) -> str:
        """Mean ± std."""
        if value.mean is None:
            return NOTHING
        text = self.number(value.mean)
        if value.std is not None:
            text += f" ± {self.number(value.std)}"
        return f"{text} %" if unit and self.is_share else text

    def verdict(self, gap: Gap) -> str:
        """What an interval says: "better", "worse", "no clear difference", or nothing without one."""
        if gap.low is None or gap.high is None:
            return ""
        if gap.low <= 0 <= gap.high:
            return "no clear difference"
        return "better" if (gap.mean > 0) == self.maximize else "worse"


def minus(text: str) -> str:
    """With a minus sign for the hyphen, and zero without a sign."""
    if text[:1] in ("-", "+") and not text.strip("+-0."):
        return text[1:]
    return text.replace("-", "\u2212")


def significant(value: float, digits: int = 3) -> str:
    """A number with so many digits that count, never in exponents."""
    if not value:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".split("e")[1])
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def seconds(value: float) -> str:
    """A time, in the unit that suits it."""
    factor, unit = _unit(value)
    return f"{significant(value * factor)} {unit}"


def seconds_spread(value: float, std: float) -> str:
    """A time and its standard deviation, in one unit."""
    factor, unit = _unit(value)
    return f"{significant(value * factor)} ± {significant(std * factor, 2)} {unit}"


def _unit(value: float) -> tuple[float, str]:
    for factor, unit in ((1e6, "µs"), (1e3, "ms"), (1.0, "s")):
        if value * factor < (999.5 if factor > 1 else 6000):
            return factor, unit
    return 1 / 3600, "h"


def size(n_bytes: float) -> str:
    """A number of bytes, in the unit that suits it."""
    for unit in ("B", "KiB", "MiB"):
        if n_bytes < 999.5:
            return f"{significant(n_bytes)} {unit}"
        n_bytes /= 1024
    return f"{significant(n_bytes)} GiB"


def count(number: int, thing: str) -> str:
    """A number of things."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def share(value: float) -> str:
    """A share of 1, in per cent."""
    return f"{100 * value:.0f} %"


def times(value: float) -> str:
    """A ratio."""
    return f"{value:.2f} \u00d7"


def passes(counts: dict[str, float]) -> str:
    """How often each kind of action is carried out, on average."""
    return " ".join(f"{kind}\u00a0{plain(count)}" for kind, count in counts.items())


def plain(value: float) -> str:
    """A number without more digits than it takes, and than mean anything."""
    return f"{value:,.0f}" if value == int(value) else significant(value)


def setting(value: object) -> str:
    """The value of a flag or of a part of the environment."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {setting(part)}" for key, part in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(setting(part) for part in value) or "none"
    return "none" if value is None or value == "" else str(value)


def glue(text: str) -> str:
    """A sentence whose numbers are not torn from their names and units at the ends of lines."""
    text = re.sub(r"\b([A-Zn]) = (?=\d)", "\\1\u00a0=\u00a0", text)
    return re.sub("(?<=\\d) (?=%|\u00d7|points|samples/s)", "\u00a0", text)


def few(names: list[str], most: int = 4) -> str:
    """Names in a sentence, and how many more there are."""
    if len(names) > most + 1:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)
