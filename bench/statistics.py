"""Statistics of made-up runs: seconds and peak memory, compared with plain pandas and SciPy.

`trials` has many seeds of 288 captions and 70 components; `map` has as many single-step windows as
a map of 25 steps. Every figure is a fresh process's. `estimates` is what makes all statistics, in a
connection of DuckDB with a memory limit; `rank` is `dqf rank` the first time and again; `pandas` is
reading, grouping and averaging alone; `SciPy` is its bootstrap and permutation test state by state,
timed on some states and multiplied by their number.

    python -m bench.statistics [--rows 1000000 10000000] [--memory 1GB]
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import stats

from jobs.query.estimates import make_statistics
from jobs.query.kept_statistics import FOLDER
from jobs.query.rank import SHOWN, Choice, ranked
from jobs.query.select import opened_views, run_query
from jobs.query.set_members import members_of
from jobs.runs.parts import Commit, PartContent, part_name, write_part
from jobs.runs.trace_run import TraceRun, open_run
from schemas.statistics import STATISTICS
from schemas.tables import SCORES
from schemas.views import TABLES, commits_of, read_parquet, scores_of, view_statements
from tests.made_up.runs import MEASURES, make_components, make_plan, make_run

CAPTIONS = 288
COMPONENTS = 70
WINDOWS = {"trials": 1, "map": 25}
PART_CAPTIONS = 36
"""Captions of one seed in a part: 5,040 rows of `trials`, 126,000 of `map`."""
SCIPY_STATES = 10
PANDAS_ROWS = 20_000_000
"""Of more rows pandas takes more memory than this machine may have."""
MIB = 2**20


def main() -> None:
    """Print a table for each size and shape, or, in a child process, one figure as JSON."""
    options = _options()
    if options.child:
        kind, folder = options.child
        print(json.dumps(_measured(kind, Path(folder), options.memory)))
        return
    for rows in options.rows:
        for shape in options.shapes:
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                _print(shape, _written(Path(folder, "run"), rows, WINDOWS[shape]), options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", type=int, default=[1_000_000])
    parser.add_argument("--shapes", nargs="+", default=list(WINDOWS), choices=WINDOWS)
    parser.add_argument("--memory", default="1GB", help="DuckDB's limit")
    parser.add_argument("--folder", type=Path, help="where runs are made; the system's if not")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def _written(location: Path, rows: int, windows: int) -> TraceRun:
    """Return a new run with `rows` rows of scores or a few more."""
    a_seed = CAPTIONS * COMPONENTS * windows * len(MEASURES)
    seeds = -(-rows // a_seed)
    plan = make_plan(units=CAPTIONS * seeds, captions=CAPTIONS, chunk_units=64)
    run = make_run(location, plan, components=COMPONENTS)
    for number, table in enumerate(_tables(run, windows)):
        done = Commit(chunk=number, generation=0, units=1, failures=())
        part = PartContent(table=table, commits=(done,))
        content = write_part([part], run_id=run.id, schema=SCORES)
        run.storage.create(part_name(number), content)
    return run


def _tables(run: TraceRun, windows: int) -> Iterator[pa.Table]:
    """Yield scores: an effect that differs by component, a spread that captions and trials have."""
    generator = np.random.default_rng(0)
    names = [component.name for component in make_components(COMPONENTS)]
    effect_1KW1 = generator.exponential(0.03, size=(1, COMPONENTS, windows, 1))
    for seed in run.plan.seeds:
        for start in range(0, CAPTIONS, PART_CAPTIONS):
            ids = run.unit_ids.captions[start : start + PART_CAPTIONS]
            shape = (len(ids), COMPONENTS, windows, len(MEASURES))
            place = np.indices(shape).reshape(4, -1)
            spread = generator.normal(1, 0.5, size=(len(ids), 1, 1, 1))
            patched = 0.1 + effect_1KW1 * spread + generator.normal(0, 0.02, size=shape)
            rows = patched.size
            columns = {
                "unit_id": pa.repeat("u" * 32, rows),
                "caption_id": pa.array(ids).take(pa.array(place[0])),
                "seed": pa.repeat(pa.scalar(seed, pa.int64()), rows),
                "draw": pa.repeat(pa.scalar(0, pa.int32()), rows),
                "noise_sigmas": pa.repeat(3.0, rows),
                "part": pa.repeat("text-encoder", rows),
                "component": pa.array(names).take(pa.array(place[1])),
                "intervention": pa.repeat("restore", rows),
                "token": pa.repeat("last_subject", rows),
                "position": pa.nulls(rows, pa.int32()),
                "token_text": pa.nulls(rows, pa.string()),
                "step_start": pa.array(place[2], pa.int32()),
                "step_stop": pa.array(place[2] + 1, pa.int32()),
                "path": pa.repeat("tokens", rows),
                "patch_kind": pa.repeat("state", rows),
                "measure": pa.array(MEASURES).take(pa.array(place[3])),
                "estimate": pa.repeat("exact", rows),
                "clean": pa.repeat(0.3, rows),
                "corrupted": pa.repeat(0.1, rows),
                "patched": pa.array(patched.ravel()),
            }
            yield pa.table(columns, schema=SCORES)


def _print(shape: str, run: TraceRun, options: argparse.Namespace) -> None:
    ours, rank = _in_child("estimates", run, options), _in_child("rank", run, options)
    size = sum(path.stat().st_size for path in Path(run.location, "parts").iterdir())
    print(
        f"\n{shape}: {ours['rows']:,.0f} rows ({size / MIB:.0f} MiB), "
        f"{ours['states']:,.0f} estimates; DuckDB's limit {options.memory}; "
        f"load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores\n"
        f"estimates {ours['s']:.2f} s ({ours['cpu_s']:.2f} s of CPU), {ours['mib']:.0f} MiB at "
        f"most, {ours['base_mib']:.0f} before\n"
        f"dqf rank {rank['s']:.2f} s, again {rank['again_s']:.2f} s, "
        f"count(*) {rank['count_s']:.2f} s",
        flush=True,
    )
    scipy = _in_child("scipy", run, options)
    print(
        f"SciPy's intervals and tests {scipy['s']:.0f} s ({scipy['cpu_s']:.0f} s of CPU), from "
        f"{SCIPY_STATES} of them: {scipy['cpu_s'] / ours['cpu_s']:.0f} times all of ours",
        flush=True,
    )
    if ours["rows"] <= PANDAS_ROWS:
        pandas = _in_child("pandas", run, options)
        print(
            f"pandas' means alone {pandas['s']:.2f} s ({pandas['cpu_s']:.2f} s of CPU), "
            f"{pandas['mib']:.0f} MiB: {pandas['cpu_s'] / ours['cpu_s']:.1f} times all of ours",
            flush=True,
        )


def _in_child(kind: str, run: TraceRun, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.statistics", "--child", kind, run.location]
    command += ["--memory", options.memory]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def _measured(kind: str, folder: Path, memory: str) -> dict[str, float]:
    base = _peak_mib()
    work = {
        "estimates": lambda: _estimates(folder, memory),
        "rank": lambda: _rank(open_run(folder)),
        "pandas": lambda: _pandas(folder),
        "scipy": lambda: _scipy(folder),
    }[kind]
    return {"base_mib": base, **work(), "mib": _peak_mib()}


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _timed_with_cpu(work: Callable[[], object]) -> dict[str, float]:
    start_s = time.process_time()
    return {"s": _timed(work), "cpu_s": time.process_time() - start_s}


def _estimates(folder: Path, memory: str) -> dict[str, float]:
    parts = [str(path) for path in sorted(folder.glob("parts/*.parquet"))]
    config: dict[str, Any] = {"memory_limit": memory, "temp_directory": str(folder / "spilt")}
    with duckdb.connect(config=config) as connection:
        for name, schema in STATISTICS.items():
            connection.register(f"estimated_{name}", schema.empty_table())
        for statement in view_statements(
            {name: f"FROM {read_parquet([str(folder / f'{name}.parquet')])}" for name in TABLES},
            scores=scores_of(parts, SCORES),
            commits=commits_of(parts),
            set_members=members_of(open_run(folder)),
            statistics={name: f"FROM estimated_{name}" for name in STATISTICS},
        ):
            connection.execute(statement)
        tables: list[dict[str, pa.Table]] = []
        seconds = _timed_with_cpu(lambda: tables.append(make_statistics(connection)))
        ((rows,),) = connection.execute("SELECT count(*) FROM scores").fetchall()
    return {**seconds, "rows": rows, "states": len(tables[0]["ranking"])}


def _rank(run: TraceRun) -> dict[str, float]:
    shutil.rmtree(Path(run.location, FOLDER), ignore_errors=True)

    def rank() -> None:
        with opened_views(run) as views:
            ranked(views, Choice(measure="target"), columns=SHOWN, top=10)

    return {
        "count_s": _timed(lambda: run_query(run, "SELECT count(*) FROM scores")),
        "s": _timed(rank),
        "again_s": _timed(rank),
    }


KEYS = [
    "part", "component", "intervention", "token", "step_start", "step_stop", "measure",
    "caption_id",
]  # fmt: skip


def _caption_means(folder: Path, columns: list[str]) -> pd.DataFrame:
    scores = pd.read_parquet(folder / "parts", columns=[*columns, "patched", "corrupted"])
    scores["ie"] = scores["patched"] - scores["corrupted"]
    means: Any = scores.groupby(columns, observed=True, as_index=False)["ie"].mean()
    return means


def _pandas(folder: Path) -> dict[str, float]:
    return _timed_with_cpu(lambda: _caption_means(folder, KEYS).groupby(KEYS[:-1])["ie"].mean())


def _scipy(folder: Path) -> dict[str, float]:
    """Return the seconds that SciPy would take for every attribute's states."""
    generator = np.random.default_rng(0)
    with duckdb.connect() as connection:
        ((states,),) = connection.execute(
            "SELECT count(DISTINCT (component, step_start, measure)) "
            f"FROM read_parquet('{folder}/parts/*.parquet')"
        ).fetchall()
    attributes = 3  # of `tests.made_up.runs`

    def work() -> None:
        for _ in range(SCIPY_STATES):
            x_C = generator.normal(0.1, 1, size=CAPTIONS // attributes)
            stats.bootstrap((x_C,), np.mean, n_resamples=999, method="BCa", rng=1)
            stats.permutation_test(
                (x_C,), np.mean, permutation_type="samples", n_resamples=9999, rng=1,
                vectorized=True,
            )  # fmt: skip

    times = states * attributes / SCIPY_STATES
    return {name: seconds * times for name, seconds in _timed_with_cpu(work).items()}


if __name__ == "__main__":
    main()
