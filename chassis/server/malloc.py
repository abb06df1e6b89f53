"""The allocator of glibc: memory of large blocks goes back to the system when it is freed."""

import ctypes

M_MMAP_THRESHOLD = -3  # malloc.h
THRESHOLD = 65_536  # bytes


def map_large_blocks() -> None:
    """Give each block of THRESHOLD bytes or more pages of its own; see mallopt(3).

    Otherwise glibc raises its limit to the largest block that was freed, and later ones, such as
    the buffers of database connections, lie in the heap: small objects between them keep it from
    ever shrinking. Another C library has no such limit.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_THRESHOLD, THRESHOLD)
