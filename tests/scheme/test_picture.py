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
