"""The order of tasks and of packing, where two drivers work on one run."""

from pathlib import Path

from jobs.pool.packing import Groups
from jobs.pool.task_queue import TaskQueue
from jobs.runs.packs import pack
from jobs.runs.progress import open_tasks
from jobs.runs.run import Task
from tests.made_up.small_run import commit_scores, make_run


def drain(queue: TaskQueue) -> list[Task]:
    """Do all that a queue hands out to one actor."""
    done: list[Task] = []
    while (task := queue.next(is_idle=True)) is not None:
        assert queue.finish(task)
        done.append(task)
    return done


def test_what_another_driver_commits_first_is_packed_when_this_one_is_through(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path / "run")
    first, *rest = tasks = open_tasks(run)
    assert len(rest) > 1
    commit_scores(run, first.chunk)  # by the other, since the tasks were listed
    groups = Groups(run, tasks)
    for task in rest:
        commit_scores(run, task.chunk)
        groups.task_done(task)
        assert groups.next() is None
    groups.task_done(first)
    assert groups.next() == 0
    pack(run, 0)
    assert not len(Groups(run, ()))


def test_what_lacks_nothing_is_packed_at_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for chunk in range(run.num_chunks):
        commit_scores(run, chunk)
    assert Groups(run, ()).next() == 0
    assert Groups(run, [Task(chunk=0, generation=1)]).next() == 0  # what failed is tried again


def test_a_reopened_task_is_done_once_more_and_no_other_twice() -> None:
    tasks = [Task(chunk=chunk) for chunk in range(4)]
    queue = TaskQueue(tasks)
    assert queue.next(is_idle=False) == tasks[0]
    queue.finish(tasks[0])
    assert queue.next(is_idle=False) == tasks[1]
    for task in tasks[:3]:  # done, in hand, waiting
        queue.reopen(task)
    assert queue.left == 4
    queue.finish(tasks[1])
    assert drain(queue) == [tasks[0], tasks[2], tasks[3]]
    assert queue.left == 0
    queue.reopen(Task(chunk=9))  # committed by an earlier attempt
    assert drain(queue) == [Task(chunk=9)]
    assert queue.left == 0


def test_a_task_that_both_its_actors_lost_and_one_had_committed_can_be_reopened() -> None:
    (task,) = tasks = [Task(chunk=0)]
    queue = TaskQueue(tasks)
    assert queue.next(is_idle=True) == task
    queue.give_back(task)
    queue.finish(task)
    queue.reopen(task)
    assert drain(queue) == [task]
    assert queue.left == 0
