"""Memory that the C library keeps when it is freed, so that it need not be mapped anew for every run of a program."""

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8  # glibc's malloc.h
_NEVER = -1
_STEP = 2**26  # bytes by which the heap grows at least


def keep_freed_memory() -> bool:
    """Has glibc's malloc take large blocks from the heap and keep them when they are freed.

    XLA's CPU backend asks for the temporary memory of a program in each run and frees it at the end. By default glibc
    maps such a block anew each time and the kernel clears its pages one by one, which in a step of training takes as
    long as the products themselves. What a process holds at most stays the same; it holds it for longer. All threads
    share one heap, since those that glibc gives to threads of their own hold no large blocks. Call it before JAX starts
    its threads, that is before the first array.

    Returns: whether the C library is one that can; elsewhere nothing is changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: _STEP}
    taken = [mallopt(name, value) for name, value in settings.items()]
    return all(taken)
