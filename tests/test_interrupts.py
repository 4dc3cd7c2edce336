"""Ctrl-C ends what it is meant to end, wherever it comes, and nothing else."""

import signal
import sys
import threading
import time
import weakref
from contextlib import suppress

import pytest

from omniqa.interrupts import no_interrupt_lost


def press():
    signal.raise_signal(signal.SIGINT)


class Finalised:
    def __del__(self):
        press()


class Thing:
    pass


def in_a_finaliser():
    Finalised()


def in_a_weak_reference():
    thing = Thing()
    reference = weakref.ref(thing, lambda gone: press())
    del thing
    assert reference() is None


def replaced():
    try:
        press()
    except KeyboardInterrupt:
        raise ValueError("could not determine the shape") from None


def swallowed():
    with suppress(KeyboardInterrupt):
        press()


def plain():
    press()


@pytest.mark.parametrize("pressed", [plain, in_a_finaliser, in_a_weak_reference, replaced, swallowed])
def test_ctrl_c_leaves_the_block_wherever_it_comes(pressed):
    with pytest.raises(KeyboardInterrupt), no_interrupt_lost():
        pressed()


@pytest.mark.parametrize("pressed", [in_a_finaliser, in_a_weak_reference])
def test_ctrl_c_while_an_object_is_freed_ends_the_work_there(pressed):
    went_on = []
    with suppress(KeyboardInterrupt), no_interrupt_lost():
        pressed()
        time.sleep(10)
        went_on.append("to its end")
    assert went_on == []


def test_a_block_of_its_own_lets_the_outer_one_go_on():
    with no_interrupt_lost():
        with suppress(KeyboardInterrupt), no_interrupt_lost():
            replaced()
        reached = True
    assert reached


def test_without_ctrl_c_errors_and_results_are_what_they_were():
    with pytest.raises(ValueError, match="own"), no_interrupt_lost():
        raise ValueError("own")
    with no_interrupt_lost():
        pass


def test_what_else_python_drops_is_told_as_before(monkeypatch):
    class Faulty:
        def __del__(self):
            raise ValueError("own")

    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: told.append(dropped.exc_type))
    with no_interrupt_lost():
        Faulty()
    assert told == [ValueError]


def test_handler_and_hook_are_what_they_were():
    before = signal.getsignal(signal.SIGINT), sys.unraisablehook
    with suppress(KeyboardInterrupt), no_interrupt_lost():
        press()
    assert (signal.getsignal(signal.SIGINT), sys.unraisablehook) == before


def test_other_threads_are_left_alone():
    handlers = []

    def work():
        with no_interrupt_lost():
            handlers.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [before]
