"""A scheme as a picture: a coloured cell for every coefficient, an arrow for every row, text from anybody escaped."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

import interlocking_backprop as ib

SVG = "{http://www.w3.org/2000/svg}"


def picture(scheme: ib.Scheme) -> ElementTree.Element:
    return ElementTree.fromstring(scheme._repr_html_()).find(f"{SVG}svg")


def coefficients(scheme: ib.Scheme) -> np.ndarray:
    """What the cells of the picture say."""
    matrix = np.zeros((scheme.n_components, scheme.n_components))
    for rect in picture(scheme).iter(f"{SVG}rect"):
        if match := re.fullmatch(r"component (\d+): (.+) of loss (\d+)", rect.findtext(f"{SVG}title")):
            matrix[int(match[1]), int(match[3])] = float(match[2])
    return matrix


@pytest.mark.parametrize(
    "scheme",
    [
        ib.local(1),
        ib.nwise(5, 3, "mean"),
        ib.deep_supervision(4),
        ib.Scheme([[0, 1 / 3, -2], [0, 0, 0], [0, 0, 1e-300]]),
        ib.Scheme(np.triu(np.random.default_rng(0).normal(size=(8, 8)))),
        ib.Scheme(np.zeros((2, 2))),
        ib.pairwise(64),
    ],
)
def test_every_coefficient_has_a_cell(scheme):
    assert np.array_equal(coefficients(scheme), scheme.matrix)
    # An arrow to every component that follows a loss further on.
    n_arrows = sum(bool(row[i + 1 :].any()) for i, row in enumerate(scheme.matrix))
    assert len(list(picture(scheme).iter(f"{SVG}path"))) == n_arrows


def test_the_sign_is_a_colour_and_the_size_its_strength():
    rects = [r for r in picture(ib.Scheme([[1, -2], [0, 0.5]])).iter(f"{SVG}rect") if "stroke" not in r.attrib]
    assert [(r.get("fill"), r.get("fill-opacity")) for r in rects] == [
        ("#56B4E9", "0.40"),
        ("#E69F00", "0.60"),
        ("#56B4E9", "0.30"),
    ]


def test_the_colour_of_text_is_that_of_the_page():
    svg = picture(ib.nwise(3, 2))
    assert svg.get("fill") == "currentColor"
    assert not [text for text in svg.iter(f"{SVG}text") if "fill" in text.attrib]


def test_a_name_is_text():
    assert "<b>" not in ib.Scheme([[1]], name="<b>")._repr_html_()


def test_a_frozen_component_says_so():
    assert "component 0 is trained by nothing" in ib.Scheme([[0, 0], [0, 1]])._repr_html_()


def test_what_is_too_large_for_a_picture_is_a_line():
    assert len(ib.deep_supervision(1000)._repr_html_()) < 200
    assert len(ib.deep_supervision(64)._repr_html_()) < 400_000


@pytest.mark.parametrize(
    "scheme",
    [
        ib.e2e(5).delay([3, 2, 2, 1, 0]),
        0.5 * ib.pairwise(4) + 0.5 * ib.e2e(4).delay(1) + -1 * ib.e2e(4).delay(3),
        ib.pairwise(64).delay(2),
    ],
)
def test_every_late_coefficient_has_a_cell_with_its_age(scheme):
    found = {age: np.zeros_like(scheme.matrix) for age in (0, *scheme.delayed)}
    for rect in picture(scheme).iter(f"{SVG}rect"):
        title = rect.findtext(f"{SVG}title")
        if match := re.fullmatch(r"component (\d+): (.+) of loss (\d+)(?:, (\d+) steps? late)?", title):
            found[int(match[4] or 0)][int(match[1]), int(match[3])] = float(match[2])
            assert ("stroke-dasharray" in rect.attrib) == bool(match[4])
    for age, matrix in found.items():
        np.testing.assert_array_equal(matrix, scheme.coefficients(age))


def test_ages_share_a_cell_and_are_written_behind_the_coefficient():
    svg = picture(ib.Scheme([[0.5]], delayed={1: [[1]], 12: [[-2]]}))
    rects = [r for r in svg.iter(f"{SVG}rect") if "of loss" in r.findtext(f"{SVG}title")]
    assert [float(r.get("height")) for r in rects] == pytest.approx([32 / 3] * 3, abs=1e-3)
    tops = [float(r.get("y")) for r in rects]
    assert tops == pytest.approx([37, 37 + 32 / 3, 37 + 64 / 3], abs=1e-3)
    assert [text.text for text in svg.iter(f"{SVG}text")][-3:] == ["0.5", "1~1", "-2~12"]
