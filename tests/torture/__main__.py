"""The long run: `make torture`, or `python -m tests.torture [--minutes N] [--seed N]`.

Rounds of histories, each from a seed of its own that is printed, on a database of its own. The first that is violated
ends the run: hypothesis makes it as short as it can, and it is saved with its seed. Exit code 1 then.
"""

import argparse
import json
import logging
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from headwater.installation import open_installation
from headwater.settings import Settings
from tests.torture.environment import open_environment
from tests.torture.machine import Histories

_HISTORIES_A_ROUND, _STEPS_A_HISTORY = 20, 40
_SAVED = Path("torture-failures")


def main() -> int:
    options = _options()
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # it tells of each connection that died
    until = time.monotonic() + 60 * options.minutes
    began_at, tally = time.monotonic(), Counter[str]()
    number = random.SystemRandom().randrange(2**31) if options.seed is None else options.seed
    while tally["rounds"] == 0 or (time.monotonic() < until and options.seed is None):
        print(f"round {tally['rounds'] + 1}: --seed {number}", file=sys.stderr, flush=True)
        told, tally_of_round = _round(number)
        tally += tally_of_round
        tally["rounds"] += 1
        if told is not None:
            _SAVED.mkdir(exist_ok=True)
            saved = _SAVED / f"seed-{number}.txt"
            saved.write_text(told)
            print(told, f"\nsaved in {saved}; again: python -m tests.torture --seed {number}", file=sys.stderr)
            break
        number += 1
    figures = {"minutes": round((time.monotonic() - began_at) / 60, 1), "violated": told is not None} | dict(tally)
    print(json.dumps(figures), flush=True)
    return 1 if told is not None else 0


def _round(number: int, *, shrink: bool = True) -> tuple[str | None, Counter[str]]:
    """What hypothesis says of the shortest history that is violated, if one is; and what was counted."""
    with tempfile.TemporaryDirectory(prefix="torture-") as directory:
        given = Settings(data_dir=Path(directory, "data"), local_roots=(Path(directory),), decoders=1)
        with (
            open_installation(given) as installation,
            open_environment(given, installation.database_url, Path(directory)) as environment,
        ):
            histories = seed(number)(type("Torture", (Histories,), {"environment": environment}))
            try:
                run_state_machine_as_test(
                    histories,
                    settings=settings(
                        max_examples=_HISTORIES_A_ROUND,
                        stateful_step_count=_STEPS_A_HISTORY,
                        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
                        deadline=None,
                        database=None,
                        suppress_health_check=list(HealthCheck),
                    ),
                )
            except Exception:
                return traceback.format_exc(), environment.tally
            return None, environment.tally


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description="Random histories of a sync.")
    minutes = float(os.environ.get("TORTURE_MINUTES") or 60)
    parser.add_argument("--minutes", type=float, default=minutes, help="TORTURE_MINUTES; 60 by default")
    parser.add_argument("--seed", type=int, help="only the round of this seed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
