"""What comes next is worked on meanwhile, never more of it than was allowed."""

import gc
import threading
import time
import weakref

import pytest

from omniqa.jobs.prefetch import Cancelled, prefetch


class Result:
    """Something large."""


@pytest.mark.parametrize("count", [0, 1, 3])
def test_never_more_results_than_allowed_are_held(count):
    alive, most, lock = weakref.WeakSet(), [0], threading.Lock()

    def work(item, check):
        result = Result()
        with lock:
            alive.add(result)
            most[0] = max(most[0], len(alive))
        return result

    for _, take in prefetch(range(12), work, count):
        result = take()
        time.sleep(0.02)
        gc.collect()
        assert len(alive) <= count + 1
        del result
    assert most[0] <= count + 1


def test_the_next_is_worked_on_while_this_one_is_used():
    begun = [threading.Event() for _ in range(3)]

    def work(item, check):
        begun[item].set()
        return item

    steps = prefetch(range(3), work, 1)
    item, take = next(steps)
    assert (item, take()) == (0, 0)
    assert begun[1].wait(5)
    assert not begun[2].wait(0.05)
    next(steps)
    assert begun[2].wait(5)


def test_items_come_in_order_and_errors_where_they_belong():
    def work(item, check):
        time.sleep(0.01 * (item % 3))
        if item == 2:
            raise ValueError("two")
        return 10 * item

    taken = []
    for item, take in prefetch(range(5), work, 2):
        try:
            taken.append(take())
        except ValueError as error:
            taken.append((item, str(error)))
    assert taken == [0, 10, (2, "two"), 30, 40]


def test_items_are_asked_for_no_earlier_than_needed():
    asked = []

    def items():
        for item in range(10):
            asked.append(item)
            yield item

    steps = prefetch(items(), lambda item, check: item, 2)
    next(steps)
    assert asked == [0, 1, 2]


def test_work_stops_when_nobody_waits_any_more():
    stopped = threading.Event()

    def work(item, check):
        try:
            while True:
                check()
                time.sleep(0.001)
        except Cancelled:
            stopped.set()
            raise

    steps = prefetch(range(3), work, 2)
    next(steps)
    before = threading.active_count()
    steps.close()
    assert stopped.is_set()
    assert threading.active_count() == before - 3
