"""The `datasets` library reads its settings when it is first imported, so they are set before any test runs."""

import os
import shutil
import tempfile

_HOME = tempfile.mkdtemp(prefix="hub-cache-")
if "HF_HUB_OFFLINE" not in os.environ:  # else the tests of images have set all of them
    os.environ |= {
        "HF_HOME": _HOME,
        "HF_DATASETS_CACHE": f"{_HOME}/datasets",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)
