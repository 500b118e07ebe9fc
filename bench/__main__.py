"""Runs the benchmarks that are named, or all: `python -m bench [sync] [preprocess] [memory]`.

Each figure is one line of JSON on standard output; what goes on meanwhile is told on standard error. The exit code is
1 when a figure misses its target.
"""

import argparse
import sys

from bench import memory, preprocess, sync

_BENCHMARKS = {"sync": sync.measure, "preprocess": preprocess.measure, "memory": memory.measure}


def run() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Figures as ratios to a floor of the same run."
    )
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of {', '.join(_BENCHMARKS)}; all by default")
    names = parser.parse_args().names or list(_BENCHMARKS)
    if unknown := set(names) - _BENCHMARKS.keys():
        parser.error(f"no benchmark is named {', '.join(sorted(unknown))}")
    have_passed = True
    for name in names:
        for figure in _BENCHMARKS[name]():
            print(figure.line(), flush=True)
            have_passed &= figure.passed
    return 0 if have_passed else 1


if __name__ == "__main__":
    sys.exit(run())
