"""Names of data sets."""

from __future__ import annotations

import subprocess
import sys

import pytest

from interlocking_backprop.data import DATA_FORMS, load_data


@pytest.mark.parametrize("name", ["", "mnist", "folder:", "hub:", "digits:3", "Digits"])
def test_unknown_names(name):
    with pytest.raises(ValueError, match="is not known; expected digits, ") as caught:
        load_data(name)
    assert DATA_FORMS in str(caught.value)


def test_options_are_checked_for_every_data_set():
    with pytest.raises(ValueError, match="validation_fraction is 0"):
        load_data("digits", validation_fraction=0)


def test_slow_libraries_are_imported_only_where_they_are_needed():
    code = (
        "import sys; from interlocking_backprop.data import load_data\n"
        "print([m for m in ('kornia', 'sklearn', 'datasets', 'PIL') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
