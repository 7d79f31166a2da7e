"""Time from a command to its first committed score: python -m bench.first_score [--repeats 3].

`dqf trace submit` of a few captions on a local Ray, as a new process; the first file under `parts/`
with scores ends the time. The baseline is a process that imports the engine and opens the same
model: what no tracer can do without. The two take turns; medians and their ratio are printed.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jobs.runs.parts import EMPTY_PART

OPENS = "from engine.model.opening import open_model; open_model('emoji-sd')"
PAUSE_S = 0.02
LIMIT_S = 300.0


def first_score(folder: Path, steps: int) -> float:
    """Return the seconds until a new run in a folder has its first part file."""
    run = folder / "run"
    words = ["trace", "submit", "--run", str(run), "--steps", str(steps), "--quiet"]
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "dqf", *words]) as process:
        while not any(part != run / EMPTY_PART for part in run.glob("parts/**/*.parquet")):
            seconds = time.perf_counter() - start
            if process.poll() is not None or seconds > LIMIT_S:
                process.kill()
                raise RuntimeError(f"no score after {seconds:.0f} s")
            time.sleep(PAUSE_S)
        seconds = time.perf_counter() - start
        process.terminate()
    return seconds


def opened() -> float:
    """Return the seconds of a process that imports the engine and opens the model."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", OPENS], check=True)
    return time.perf_counter() - start


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    scored: list[float] = []
    opening: list[float] = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            scored.append(first_score(Path(folder), options.steps))
        opening.append(opened())
    ours, baseline = statistics.median(scored), statistics.median(opening)
    print(
        f"first committed score {ours:.1f} s, a process that opens the model {baseline:.1f} s: "
        f"{ours / baseline:.2f} times"
    )


if __name__ == "__main__":
    main()
