from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlocking_backprop.nets.grammar import (
    AuxLayer,
    Superblock,
    parse_architecture,
    parse_aux_net,
    parse_block_counts,
)


def marked(error: ValueError) -> tuple[str, int]:
    """The line of the message that shows the string, and the column of the mark below it."""
    *_, text, mark = str(error).split("\n")
    assert re.fullmatch("  *\\^", mark)
    assert text.startswith("  ")
    return text[2:], mark.index("^") - 2


def check_mark(error: ValueError, text: str, column: int) -> None:
    assert repr(text) in str(error).split("\n")[0]
    assert marked(error) == (text, column)


def test_architecture_of_resnet34():
    assert parse_architecture("64,3/128,4/256,6/512,3") == ((64, 3), (128, 4), (256, 6), (512, 3))


@given(st.lists(st.builds(Superblock, st.integers(1, 5000), st.integers(1, 99)), min_size=1, max_size=6))
def test_architecture_reads_what_was_written(superblocks):
    assert list(parse_architecture("/".join(f"{s.planes},{s.n_blocks}" for s in superblocks))) == superblocks


def test_blanks_between_words_do_not_matter():
    assert parse_architecture(" 8 , 1 / 16,2\n") == ((8, 1), (16, 2))
    assert parse_block_counts("1, 2, rest ", 8) == [1, 2, 5]


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("", 0, "planes"),
        ("64", 2, "','"),
        ("64,", 3, "number of blocks"),
        ("64,3/", 5, "planes"),
        ("64,3/128;4", 8, "','"),
        ("64,3,4", 4, "'/'"),
        ("64,3x", 4, "'/'"),
        ("x64,3", 0, "planes"),
        ("64,3/0,4", 5, "at least 1"),
        ("64,3/128,-4", 9, "at least 1"),
        ("64,3/128,2.5", 10, "'/'"),
    ],
)
def test_architecture_error_points_at_the_place(text, column, expected):
    with pytest.raises(ValueError, match=expected) as caught:
        parse_architecture(text)
    check_mark(caught.value, text, column)


def test_aux_net_layers():
    assert parse_aux_net("conv128_bn_conv64_gbpl_fc") == (
        AuxLayer("conv", 128),
        AuxLayer("bn"),
        AuxLayer("conv", 64),
        AuxLayer("gbpl"),
        AuxLayer("fc"),
    )


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("", 0, "conv<channels>"),
        ("fc", 0, "fc comes right behind gbpl"),
        ("conv_gbpl_fc", 4, "channels"),
        ("conv0_gbpl_fc", 4, "at least 1"),
        ("conv8bn_gbpl_fc", 5, "'_'"),
        ("conv8_bnn_gbpl_fc", 8, "'_'"),
        ("conv8_relu_gbpl_fc", 6, "conv<channels>, bn or gbpl"),
        ("conv8_bn_fc", 9, "fc comes right behind gbpl"),
        ("conv8_flt_fc", 6, "gbpl in place of flt"),
        ("conv8_gbpl", 10, "'_' and the next layer"),
        ("gbpl_", 5, "fc"),
        ("gbpl_bn_fc", 5, "fc, the only layer behind gbpl"),
        ("gbpl_fc_fc", 7, "the end"),
    ],
)
def test_aux_net_error_points_at_the_place(text, column, expected):
    with pytest.raises(ValueError, match=expected) as caught:
        parse_aux_net(text)
    check_mark(caught.value, text, column)


@pytest.mark.parametrize("counts", ["2,3,rest", ["2", "3", "rest"], (2, 3, "rest")])
def test_block_counts_in_all_their_forms(counts):
    assert parse_block_counts(counts, 18) == [2, 3, 13]


def test_rest_alone_is_the_whole_network():
    assert parse_block_counts(["rest"], 5) == [5]


@pytest.mark.parametrize(
    ("counts", "text", "column", "expected"),
    [
        ([], "", 0, "'rest' or a number of blocks"),
        ("1,1", "1,1", 3, "the last one is 'rest'"),
        ("1,x,rest", "1,x,rest", 2, "a number of blocks"),
        ([1, 1.5, "rest"], "1,1.5,rest", 3, "','"),
        ([1, True, "rest"], "1,True,rest", 2, "a number of blocks"),
        ([1, 0, "rest"], "1,0,rest", 2, "at least 1"),
        ([1, -1, "rest"], "1,-1,rest", 2, "at least 1"),
        ([4, 3, "rest"], "4,3,rest", 2, "at most 2, which is what is left of the 6 blocks"),
        ([4, 2, "rest"], "4,2,rest", 4, "smaller counts before 'rest'"),
        (["rest", "1"], "rest,1", 4, "the end"),
    ],
)
def test_block_count_error_points_at_the_place(counts, text, column, expected):
    with pytest.raises(ValueError, match=expected) as caught:
        parse_block_counts(counts, 6)
    check_mark(caught.value, text, column)


def test_what_is_no_string_is_an_error():
    with pytest.raises(ValueError, match="architecture is 64; expected a string"):
        parse_architecture(64)
