"""Runs the benchmarks that are named, such as `python -m bench sync scale`; all but the long ones if none is.

Each figure is one line of JSON on standard output; what goes on meanwhile is told on standard error. The exit code is
1 when a figure misses its target.
"""

import argparse
import sys

from bench import (
    annotations,
    clone,
    csv,
    events,
    export,
    features,
    metadata,
    peers,
    preprocess,
    query,
    scale,
    serving,
    sync,
    tus,
    uploads,
    uploads_cli,
)

_BENCHMARKS = {
    "sync": sync.measure,
    "preprocess": preprocess.measure,
    "scale": scale.measure,
    "events": events.measure,
    "clone": clone.measure,
    "uploads": uploads.measure,
    "uploads_cli": uploads_cli.measure,
    "tus": tus.measure,
    "csv": csv.measure,
    "export": export.measure,
    "annotations": annotations.measure,
    "features": features.measure,
    "serving": serving.measure,
    "query": query.measure,
    "metadata": metadata.measure,
}
_LONG_BENCHMARKS = {
    "long": scale.measure_long,
    "query_long": query.measure_long,
    "peers": peers.measure,
}  # only when named: they take a quarter of an hour


def run() -> int:
    benchmarks = _BENCHMARKS | _LONG_BENCHMARKS
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Figures as ratios to a floor of the same run."
    )
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of {', '.join(benchmarks)}")
    names = parser.parse_args().names or list(_BENCHMARKS)
    if unknown := set(names) - benchmarks.keys():
        parser.error(f"no benchmark is named {', '.join(sorted(unknown))}")
    have_passed = True
    for name in names:
        for figure in benchmarks[name]():
            print(figure.line(), flush=True)
            have_passed &= figure.passed
    return 0 if have_passed else 1


if __name__ == "__main__":
    sys.exit(run())
