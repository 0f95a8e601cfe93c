"""Memory that the C library keeps when it is freed, so that it need not be mapped anew for every run of a program."""

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8  # glibc's malloc.h
_NEVER = -1
_STEP = 2**26  # bytes by which the heap grows at least


def keep_freed_memory(one_heap: bool = False) -> bool:
    """Has glibc's malloc take large blocks from the heap and keep them when they are freed.

    XLA's CPU backend asks for the temporary memory of a program in each run and frees it at the end. By default glibc
    maps such a block anew each time and the kernel clears its pages one by one, which in a step of training takes as
    long as the products themselves. What a process holds at most stays the same; it holds it for longer.

    Args:
      one_heap: for all threads, since those that glibc gives to single threads hold no blocks of more than 64 MB. The
        threads that compile then wait for each other, so this is for what runs much longer than it compiles. It holds
        for threads that are yet to start: call it before the first array is made.

    Returns: whether the C library is one that can; elsewhere nothing is changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: _STEP}
    if one_heap:
        settings[_ARENA_MAX] = 1
    taken = [mallopt(name, value) for name, value in settings.items()]
    return all(taken)
