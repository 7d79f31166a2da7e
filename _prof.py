import cProfile
import pstats
import shutil

from jobs.query import run_query
from jobs.store import open_run

shutil.rmtree("/tmp/stats_runs/replication-text/statistics")
run = open_run("/tmp/stats_runs/replication-text")
p = cProfile.Profile()
p.enable()
run_query(run, "FROM ranking where against='target'")
p.disable()
pstats.Stats(p).sort_stats("tottime").print_stats(14)
