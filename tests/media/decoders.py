"""Decode functions that misbehave, for the children of a pool under test."""

import contextlib
import ctypes
import importlib
import json
import os
import resource
import signal
import sys
from pathlib import Path

import pyvips

from headwater.media.records import Prepared, Problem, Thumbnail

remembered = {"is_harmed": False}


def obey(path, *, read_gps, max_pixels):
    """Does what the text in the file says; answers it as a message."""
    order, _, detail = path.read_text().partition(" ")
    if remembered["is_harmed"]:
        os.abort()
    ORDERS[order](detail)
    return told(order)


def told(message):
    return Prepared(problem=Problem("corrupt", message))


def loop(_):
    while True:
        pass


def loop_in_c(_):
    """Holds the interpreter's lock, so that no other thread of the child runs."""
    ctypes.PyDLL(None).pause()


def allocate(_):
    bytearray(4 * 1024**3)


def allocate_in_libvips(_):
    pyvips.Image.black(40_000, 40_000, bands=4).copy_memory()


def allocate_in_glib(_):
    """GLib ends the process when it gets no memory."""
    glib = ctypes.CDLL(pyvips_library())
    glib.g_malloc.argtypes = [ctypes.c_size_t]
    glib.g_malloc(4 * 1024**3)


def pyvips_library():
    with Path("/proc/self/maps").open() as maps:
        return next(line.split()[-1] for line in maps if "libvips" in line and ".so.42" in line)


def import_large(folder):
    """Imports a module whose compiled file is larger than a child may write."""
    sys.path.insert(0, folder)
    importlib.import_module("large")


def harm(_):
    remembered["is_harmed"] = True


def fail(_):
    raise KeyError("a fault of ours")


def chatter(_):
    print("from Python", flush=True)
    os.write(1, b"from C\n" * 1000)
    with contextlib.suppress(OSError):  # a file that is full, as C does not mind
        os.write(2, b"and on stderr\n" * 10_000)


def hold(fifo):
    """The reader of `fifo` sees us come, and go."""
    with Path(fifo).open("w") as pipe:
        pipe.write(f"{os.getpid()}\n")
        pipe.flush()
        signal.pause()


ORDERS = {
    "fine": lambda _: None,
    "loop": loop,
    "loop-in-c": loop_in_c,
    "allocate": allocate,
    "allocate-in-libvips": allocate_in_libvips,
    "allocate-in-glib": allocate_in_glib,
    "abort": lambda _: os.abort(),
    "segfault": lambda _: ctypes.string_at(0),
    "exit": lambda _: os._exit(0),
    "killed": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "fail": fail,
    "harm": harm,
    "import-large": import_large,
    "chatter": chatter,
    "hold": hold,
}


def tell_options(path, **options):
    return told(json.dumps(options))


def tell_surroundings(path, **_):
    limits = [resource.getrlimit(which)[0] for which in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE)]
    descriptors = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    return told(json.dumps({"environment": dict(os.environ), "limits": limits, "descriptors": descriptors}))


def tell_pid(path, **_):
    return told(str(os.getpid()))


def answer_large(path, **_):
    return Prepared(thumbnail=Thumbnail(bytes(3 * 1024**2), "image/jpeg", 1, 1))


def answer_nonsense(path, **_):
    for descriptor in range(3, 10):
        try:
            os.write(descriptor, b"\xff" * 64)
        except OSError:
            continue
    sys.exit()
