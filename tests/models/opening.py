"""Opens a model in N processes at once: `python -m tests.models.opening NAME N`.

Prints the first process's id, waits for a line, starts the others, prints `NUMBER CODE` for each.
"""

import os
import sys

from engine.model.opening import open_model


def start(name: str) -> int:
    """Return the id of a new process that opens the model and exits with 0."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            open_model(name, device="cpu")
            code = 0
        finally:
            os._exit(code)
    return pid


def main() -> None:
    """Fork rather than start again: the imports alone take longer than the tiny model."""
    name, count = sys.argv[1], int(sys.argv[2])
    pids = [start(name)]
    sys.stdout.write(f"{pids[0]}\n")
    sys.stdout.flush()
    sys.stdin.readline()
    pids += [start(name) for _ in range(count - 1)]
    sys.stdout.write("started\n")
    sys.stdout.flush()
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    sys.stdout.write(" ".join(map(str, codes)))


if __name__ == "__main__":
    main()
