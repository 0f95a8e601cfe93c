"""Settings of the C library's allocator that save mapping memory anew for every run of a compiled program."""

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8  # glibc's malloc.h
_NEVER = -1
_STEP = 2**26  # minimum number of bytes by which the heap grows


def keep_freed_memory(one_heap: bool = False) -> bool:
    """Make glibc's malloc allocate large blocks on the heap and keep them when they are freed.

    XLA's CPU backend allocates the temporary memory of a program on every run and frees it afterwards. By default glibc
    maps such a block anew each time and the kernel clears its pages one by one, which in a training step takes as long
    as the matrix products themselves. The peak memory of the process stays the same, but is held for longer.

    Args:
      one_heap: use a single heap for all threads, because glibc's per-thread heaps hold no blocks of more than 64 MB.
        Threads that compile then wait for each other, so this suits processes that run for much longer than they
        compile. It applies to threads that have not started yet: call it before the first array is created.

    Returns: whether the C library supports this; otherwise nothing is changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: _STEP}
    if one_heap:
        settings[_ARENA_MAX] = 1
    accepted = [mallopt(name, value) for name, value in settings.items()]
    return all(accepted)
