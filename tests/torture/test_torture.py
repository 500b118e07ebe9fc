"""A slice of the long run (`make torture`), the same one each time."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.torture.environment import open_environment
from tests.torture.machine import Histories


@pytest.mark.timeout(900)
def test_histories_end_with_the_bucket(new_database, settings_for, tmp_path):
    with open_environment(settings_for(decoders=1), new_database(), tmp_path) as Histories.environment:
        run_state_machine_as_test(
            Histories,
            settings=settings(
                max_examples=60,
                stateful_step_count=30,
                derandomize=True,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
