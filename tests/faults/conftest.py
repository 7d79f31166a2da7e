"""What a test of faults that failed leaves running is stopped: it would slow all that follow."""

from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest


@pytest.fixture(autouse=True)
def _no_driver_left() -> Iterator[None]:
    yield
    for process in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if "tests.faults.driver" in process.cmdline():
                process.kill()
