"""A line: who waits is woken in order, and nobody who died is waited for."""

from __future__ import annotations

import os
import threading

import pytest
from forks import Fork, killed_at_each_step

from parallelkit.sync import cells, lines
from parallelkit.sync.lines import Line

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the tests fork")


@pytest.fixture(params=["bells", "looks"])
def way(request, monkeypatch):
    if request.param == "looks":
        monkeypatch.setattr(lines, "DOORBELLS", False)


def sit(line):
    return line.cell.within(line.join)


def test_those_who_came_first_are_called_first(way):
    line = Line(cells.create())
    seats = [sit(line) for _ in range(3)]
    line.cell.within(lambda: line.wake(2))
    assert [seat.called() for seat in seats] == [True, True, False]
    for seat in seats:
        line.leave(seat)
    assert line.cell.words[line.count] == 0


def test_a_freed_seat_is_used_again_behind_the_others(way):
    line = Line(cells.create())
    first, second = sit(line), sit(line)
    line.leave(first)
    third = sit(line)
    assert third.place == first.place
    line.cell.within(lambda: line.wake(1))
    assert second.called()
    assert not third.called()
    line.leave(second)
    line.leave(third)


def test_two_lines_of_a_cell_are_apart(way):
    line = Line(cells.create())
    other = Line(line.cell, 1)
    here, there = sit(line), sit(other)
    line.cell.within(line.wake)
    assert here.called()
    assert not there.called()
    line.leave(here)
    other.leave(there)


@pytest.mark.skipif(not lines.DOORBELLS, reason="here the dead cannot be told")
def test_the_dead_are_passed_over():
    line = Line(cells.create())
    with Fork(lambda: bool(sit(line))) as dead:
        assert dead.result()
        mine = sit(line)
        dead.kill()
        line.cell.within(lambda: line.wake(1))
        assert mine.called()
    line.leave(mine)
    assert line.cell.words[line.count] == 0


def test_there_is_a_way_to_wait_without_a_seat(way):
    line = Line(cells.create())
    seats = [sit(line) for _ in range(20)]
    for place in range(line.first, line.first + lines.SEATS):
        line.cell.words[place] = line.cell.words[place] or -7
    extra = sit(line)
    assert extra.place == 0
    extra.wait(60)
    assert extra.called()
    for seat in seats:
        line.leave(seat)


def test_a_call_ends_the_wait(way):
    line = Line(cells.create())
    words = line.cell.words

    def look():
        return words[cells.FREE] or None

    def change():
        words[cells.FREE] = 7
        line.wake()

    with Fork(lambda: line.wait(look, True, 60)) as waiter:
        line.cell.within(change)
        assert waiter.result() == 7


def test_a_timeout_ends_the_wait(way):
    line = Line(cells.create())
    assert line.wait(lambda: None, True, 0.01) is None
    assert line.wait(lambda: None, True, 0) is None
    assert line.wait(lambda: None, False, 60) is None


def test_threads_wait_each_for_himself(way):
    line = Line(cells.create())
    box, seen = [], []
    threads = [
        threading.Thread(target=lambda: seen.append(line.wait(lambda: box or None, True, 60)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    box.append(1)
    line.cell.within(line.wake)
    for thread in threads:
        thread.join()
    assert seen == [[1]] * 3


@pytest.mark.slow
def test_a_waiter_killed_anywhere_leaves_the_line_usable():
    line = Line(cells.create())
    for _ in killed_at_each_step(lambda: line.leave(sit(line))):
        mine = sit(line)
        line.cell.within(line.wake)
        assert mine.called()
        line.leave(mine)


def test_a_caller_killed_anywhere_leaves_the_line_usable():
    line = Line(cells.create())
    for _ in killed_at_each_step(lambda: line.cell.within(line.wake)):
        mine = sit(line)
        line.cell.within(line.wake)
        assert mine.called()
        line.leave(mine)
