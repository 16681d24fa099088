import dataclasses

import pytest

from interlocking_backprop.compare.report.formatting import Metric, few, minus, seconds, significant, size
from interlocking_backprop.compare.report.headline import caveats, crossings, headline
from interlocking_backprop.compare.report.summary import summarize
from tests.compare.report import made


def summary_of(scores, *, units=None, bits=False, seeds=(0, 1, 2)):
    """Of schemes with given scores by seed at K = 4, and a step of so many units on K devices."""
    base = made.comparison(tuple(scores), (4,), seeds, epochs=1, bits=bits)
    runs = tuple(dataclasses.replace(r, score=scores[r.scheme][r.seed]) for r in base.runs)
    sample = base.estimates[0]
    estimates = tuple(
        dataclasses.replace(
            sample, name=name, scheme=name.split()[0], microbatches=m, step_seconds=u, units=u, is_best=True
        )
        for (name, m), u in (units or {}).items()
    )
    return summarize(dataclasses.replace(base, runs=runs, estimates=estimates))


E2E = [0.980, 0.982, 0.981]
LEVEL = [0.981, 0.980, 0.982]
WORSE = [0.960, 0.961, 0.961]


def test_the_fastest_of_those_that_are_level_with_e2e_comes_first():
    found = summary_of(
        {"e2e": E2E, "slow": LEVEL, "fast": LEVEL[::-1], "local": WORSE},
        units={("e2e zero", 8): 6.0, ("e2e", 2): 9.0, ("slow", 2): 5.0, ("fast", 2): 4.0, ("local", 2): 3.0},
    )
    (text,) = headline(found)
    assert text.startswith("At K = 4, fast shows no clear difference from e2e in accuracy (")
    assert "and is modelled to train 1.50 \u00d7 as fast as the fastest e2e pipeline (e2e zero, M = 8)" in text
    assert "; no clear difference: slow; clearly worse: local." in text


def test_a_scheme_that_is_slower_than_a_pipeline_of_e2e_is_said_to_be():
    found = summary_of({"e2e": E2E, "3wise": LEVEL}, units={("e2e zero", 32): 4.0, ("3wise", 2): 5.0})
    assert "but is modelled to train at only 0.80 \u00d7 the speed of the fastest e2e pipeline" in headline(found)[0]


def test_a_wide_interval_is_no_recommendation():
    # "wide" includes zero, but its mean lies below that of "local", which is clearly worse.
    wide = [0.90, 0.98, 0.94]
    found = summary_of(
        {"e2e": E2E, "level": LEVEL, "wide": wide, "local": WORSE},
        units={("e2e", 2): 9.0, ("level", 2): 5.0, ("wide", 2): 3.0, ("local", 2): 3.0},
    )
    assert headline(found)[0].startswith("At K = 4, level shows no clear difference")
    assert "; no clear difference: wide; clearly worse: local." in headline(found)[0]


def test_if_nothing_is_clear_that_is_what_is_said():
    found = summary_of(
        {"e2e": [0.9, 0.8, 0.9], "near": [0.8, 0.9, 0.9], "fast": [0.7, 0.8, 0.8]},
        units={("e2e", 2): 9.0, ("near", 2): 6.0, ("fast", 2): 3.0},
    )
    (text,) = headline(found)
    assert text.startswith("At K = 4, no scheme shows a clear difference from e2e in accuracy; near has the best mean")
    assert "and fast is the fastest, 3.00 \u00d7 (\u221210.00 points" in text


def test_two_seeds_do_not_show_that_there_is_no_difference():
    found = summary_of({"e2e": [0.9, 0.9], "far": [0.69, 0.75], "near": [0.8, 0.9], "low": [0.6, 0.6]}, seeds=(0, 1))
    (text,) = headline(found)
    assert text.startswith("At K = 4, near comes closest to e2e in accuracy (\u22125.00 points, 95 % interval ")
    assert "no clear difference" not in text
    assert caveats(found)[-1].startswith("Two seeds can show a clear difference, but not that there is none")
    # An interval from two seeds that leaves out zero still counts.
    better = headline(summary_of({"e2e": [0.9, 0.9], "up": [0.95, 0.951], "far": [0.69, 0.75]}, seeds=(0, 1)))[0]
    assert better.startswith("At K = 4, up is clearly better than e2e")
    assert better.endswith("; too few seeds to tell: far.")


def test_if_all_are_worse_the_closest_is_named():
    found = summary_of({"e2e": E2E, "far": WORSE, "near": [s - 0.005 for s in E2E]})
    assert headline(found)[0].startswith("At K = 4, all others are clearly worse than e2e; near comes closest to e2e")
    only = summary_of({"e2e": E2E, "far": WORSE})
    assert headline(only)[0].startswith("At K = 4, far is clearly worse than e2e in accuracy (\u2212")


def test_less_is_better_where_it_is():
    found = summary_of({"e2e": [2.0, 2.01, 2.02], "low": [1.9, 1.91, 1.93], "high": [2.1, 2.12, 2.12]}, bits=True)
    assert "low is clearly better than e2e in bits per byte" in headline(found)[0]
    assert "clearly worse: high" in headline(found)[0]


def test_a_scheme_that_lost_a_run_is_not_the_first_to_be_recommended():
    found = summary_of(
        {"e2e": E2E, "whole": LEVEL, "lost": LEVEL},
        units={("e2e", 2): 9.0, ("whole", 2): 5.0, ("lost", 2): 4.0},
    )
    runs = [made.lost(r) if (r.scheme, r.seed) == ("lost", 1) else r for r in found.comparison.runs]
    found = summarize(dataclasses.replace(found.comparison, runs=tuple(runs)))
    assert headline(found)[0].startswith("At K = 4, whole shows")
    assert caveats(found)[0].startswith("1 of 9 runs did not finish.")


def test_one_seed_claims_nothing():
    found = summary_of({"e2e": E2E, "local": WORSE}, seeds=(0,))
    assert headline(found) == ["At K = 4, local comes closest to e2e in accuracy (\u22122.00 points, n = 1)."]
    assert caveats(found) == ["With fewer than two seeds there is no interval, and a difference may be chance."]


def test_crossings_name_the_micro_batches_from_which_e2e_is_faster():
    sweep = {("e2e zero", 2): 6.0, ("e2e zero", 8): 4.5, ("e2e", 16): 3.5}
    found = summary_of(
        {"e2e": E2E, "3wise": LEVEL, "pairwise": LEVEL, "local": WORSE},
        units={
            **sweep,
            ("3wise", 2): 5.0,
            ("pairwise", 2): 4.0,
            ("local", 2): 3.0,
        },
    )
    assert crossings(found) == [
        "At K = 4, of the M that were tried for e2e (2, 8, 16), an e2e pipeline is faster from M = 8 than 3wise, "
        "from M = 16 than pairwise, and never faster than local."
    ]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (seconds(0.0123456), "12.3 ms"),
        (seconds(0.00099996), "1.00 ms"),
        (seconds(61.0), "61.0 s"),
        (seconds(7200), "2.00 h"),
        (seconds(0), "0 µs"),
        (size(1536), "1.50 KiB"),
        (size(5e9), "4.66 GiB"),
        (significant(12345.6), "12,346"),
        (significant(0.0456789), "0.0457"),
        (minus("-0.00"), "0.00"),
        (minus("+0.00"), "0.00"),
        (minus("-0.10"), "\u22120.10"),
        (few(["a"]), "a"),
        (few(["a", "b", "c"]), "a, b and c"),
        (few(list("abcdefg")), "a, b, c, d and 3 more"),
        (Metric("accuracy", True).number(0.98765), "98.77"),
        (Metric("bits_per_byte", False).number(-0.0126, "+"), "\u22120.013"),
    ],
)
def test_numbers_are_shown_as_people_write_them(shown, expected):
    assert shown == expected
