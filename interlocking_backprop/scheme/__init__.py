"""Which loss trains which component, and the passes that this takes. Nothing here needs torch."""

from interlocking_backprop.scheme.coefficients import Scheme, decaying, deep_supervision, e2e, local, nwise, pairwise
from interlocking_backprop.scheme.text import parse_scheme

__all__ = ["Scheme", "decaying", "deep_supervision", "e2e", "local", "nwise", "pairwise", "parse_scheme"]
