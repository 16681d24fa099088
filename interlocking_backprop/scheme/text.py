"""Schemes as the command line writes them: ``3wise-sum``, ``0.5*pairwise+0.5*e2e~2``, or a file with the matrix."""

from __future__ import annotations

import re
from pathlib import Path

from interlocking_backprop.scheme.coefficients import Scheme, decaying, deep_supervision, e2e, nwise
from interlocking_backprop.scheme.expressions import Expression, LeastDelays, parts_of
from interlocking_backprop.scheme.files import SUFFIXES, read_scheme

SCHEME_FORMS = (
    "e2e, local, pairwise, 3wise (any N), with -sum, -mean or -decay0.5 (any number) behind it (pairwise-sum, "
    "3wise-decay0.5), deep-supervision, decay0.5, pipedream, pipedream-2bw, a .csv or .json file; late (e2e~1, e2e~), "
    "or a sum (0.5*pairwise+0.5*e2e~1)"
)
_DECAY = r"decay(?P<decay>[0-9]*\.?[0-9]+(?:e-?[0-9]+)?)"
_WINDOW = re.compile(
    rf"(?:(?P<word>local|pairwise)|(?P<n>[0-9]{{1,9}})-?wise)(?:-(?:(?P<reduction>furthest|sum|mean)|{_DECAY}))?"
)


def parse_scheme(text: str, n_components: int, least_delays: LeastDelays | None = None) -> Scheme:
    """Reads a scheme for a number of components.

    Args:
        text: one of the forms in `SCHEME_FORMS`.
        n_components: K.
        least_delays: what ``~`` without a number stands for: gets the scheme before it, and returns a delay for each
            component. `interlocking_backprop.least_delays`, given a number of micro-batches, is such a function.

    Raises:
        ValueError: if the text is none of the forms, the file's matrix is not K x K, or the text asks for least delays
            and there is no ``least_delays``.
    """
    if _is_file(text):
        return read_scheme(Path(text.strip()), n_components)
    return _expression(text, n_components, least_delays).scheme


def resolve(text: str, n_components: int, least_delays: LeastDelays) -> str:
    """The text of a scheme with the numbers that ``~`` stands for written out: ``e2e~2.1.1.0`` for ``e2e~``.

    The arguments and errors are those of `parse_scheme`.
    """
    return text.strip() if _is_file(text) else _expression(text, n_components, least_delays).resolved


def files_in(text: str) -> list[str]:
    """The names of the files that the text of a scheme names."""
    if _is_file(text):
        return [text.strip()]
    return [name for name in parts_of(text) if name.endswith(SUFFIXES)]


def _is_file(text: str) -> bool:
    """Whether the text as a whole is that of a file, whatever characters are in its name."""
    return text.strip().endswith(SUFFIXES) and Path(text.strip()).is_file()


def _expression(text: str, n_components: int, least_delays: LeastDelays | None) -> Expression:
    return Expression(text.strip(), lambda part: _named(part, n_components), least_delays)


def _named(text: str, n_components: int) -> Scheme:
    """Reads a scheme that is not made of others."""
    if text == "e2e":
        return e2e(n_components)
    if text == "deep-supervision":
        return deep_supervision(n_components)
    if text == "pipedream":
        return _called(text, e2e(n_components).delay(range(n_components)[::-1]))
    if text == "pipedream-2bw":
        return _called(text, e2e(n_components).delay(1))
    try:
        if match := _WINDOW.fullmatch(text):
            n = {"local": 1, "pairwise": 2}[match["word"]] if match["word"] else int(match["n"])
            if match["decay"]:
                return decaying(n_components, float(match["decay"]), n)
            return nwise(n_components, n, match["reduction"] or "furthest")  # type: ignore[arg-type]
        if match := re.fullmatch(_DECAY, text):
            return decaying(n_components, float(match["decay"]))
    except ValueError as error:
        raise ValueError(f"scheme {text!r}: {error}") from None
    if text.endswith(SUFFIXES):
        return read_scheme(Path(text), n_components)
    raise ValueError(f"scheme {text!r} is not known; expected {SCHEME_FORMS}.")


def _called(name: str, scheme: Scheme) -> Scheme:
    return Scheme(scheme.matrix, name, delayed=scheme.delayed)
