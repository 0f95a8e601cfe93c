import subprocess
import sys

import pytest

CODE = """
import ctypes, resource, sys, threading
from videogen_jax.runtime.host_memory import keep_freed_memory

if "keep" in sys.argv and not keep_freed_memory(one_heap=True):
    sys.exit("the C library has no mallopt")
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def fill():
    block = libc.malloc(2**26)
    ctypes.memset(block, 1, 2**26)
    libc.free(block)

def fill_in_thread():  # glibc gives it a heap of its own, which holds no large blocks
    thread = threading.Thread(target=fill)
    thread.start()
    thread.join()

fill_in_thread()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    fill_in_thread()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_pages_are_mapped_once():
    def faults(*arguments):
        done = subprocess.run([sys.executable, "-c", CODE, *arguments], capture_output=True, text=True)
        if "no mallopt" in done.stderr:
            pytest.skip("the C library has no mallopt")
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    assert faults("keep") < 100 < 1000 < faults()
