"""Memory that is freed is used again: the pages of a tensor are faulted in once, not at every step."""

from __future__ import annotations

import platform
import subprocess
import sys

import interlocking_backprop as ib

SCRIPT = """
import resource, sys
import torch
import interlocking_backprop as ib

if sys.argv[1] == "keep":
    assert ib.keep_freed_memory()
for _ in range(20):  # until the heap, which grows at first, has found its size
    torch.ones(2**23)  # 32 MiB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**23)
pages = 2**25 // resource.getpagesize()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / pages)
"""


def tensors_faulted_in(mode: str) -> float:
    output = subprocess.run([sys.executable, "-c", SCRIPT, mode], check=True, capture_output=True, text=True)
    return float(output.stdout)


def test_pages_are_kept():
    if platform.libc_ver()[0] == "glibc":
        assert tensors_faulted_in("keep") < 2  # without: ten
    else:
        assert not ib.keep_freed_memory()
