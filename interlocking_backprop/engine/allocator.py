"""Memory that a step frees is kept for the next one, instead of going back to the operating system.

A training step on a CPU allocates the same tensors again and again. glibc returns the top of its heap whenever enough
of it is free, which is at the end of every step, and the next step pays for every page with a fault: 10 to 15 % of the
time of a small ResNet (docs/log.md). PyTorch's own remedy is another allocator; this needs none.
"""

from __future__ import annotations

import ctypes
import sys

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Tells glibc's allocator to keep freed memory for the rest of the process.

    Worth it for any training on a CPU; `ibp train` calls it there. Returns whether there was a glibc to tell.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 64 * 2**20}
    return all(mallopt(parameter, value) == 1 for parameter, value in settings.items())
