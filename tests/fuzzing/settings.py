"""How long is tried: a few seconds of the same examples, or minutes of other ones each time."""

from hypothesis import HealthCheck, settings

QUICK_S = 4.0
LONG_S = 180.0
CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=CHECKS
)
LONG = settings(max_examples=100_000, deadline=None, database=None, suppress_health_check=CHECKS)
