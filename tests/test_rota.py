"""`rota`: whose turn it is, played without workers or clock."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from parallelkit.rota import QUANTUM, Rota


def never(_):
    return False


def always(_):
    return True


class Crew:
    """Workers that come when they are granted and go as soon as they are recalled."""

    def __init__(self, most):
        self.rota = Rota(most)
        self.number = 0
        self.now = 0.0
        self.turns = Counter()

    def grant(self):
        granted = []
        for run in self.rota.grants():
            self.number += 1
            self.rota.took(run, self.number, self.now)
            self.turns[run] += 1
            granted.append(run)
        return granted

    def hand_over(self, idle=never, again=True):
        """Carry out what is recalled, and have those who lost a worker ask for it again."""
        leases = self.rota.recalls(self.now, idle)
        for lease in leases:
            self.rota.left(lease.run, lease.worker)
            if again:
                self.rota.ask(lease.run, 1)
        self.grant()
        return [lease.run for lease in leases]

    def holdings(self):
        return Counter(run for run, _ in self.rota.leases)


def test_who_is_alone_gets_all():
    crew = Crew(3)
    crew.rota.ask(1, 5)

    assert crew.grant() == [1, 1, 1]
    assert crew.hand_over() == []
    assert crew.rota.due == math.inf


def test_workers_go_round_among_those_who_come_together():
    crew = Crew(4)
    for run in (1, 2, 3):
        crew.rota.ask(run, 4)

    assert crew.grant() == [1, 2, 3, 1]


def test_a_newcomer_has_its_share_at_once():
    crew = Crew(4)
    crew.rota.ask(1, 4)
    crew.grant()
    crew.rota.ask(2, 4)

    lost = [crew.hand_over() for _ in range(3)]

    assert lost == [[1], [1], []]
    assert crew.holdings() == {1: 2, 2: 2}


def test_a_lease_that_others_wait_for_ends_after_a_while():
    crew = Crew(1)
    crew.rota.ask(1, 1)
    crew.grant()
    crew.rota.ask(2, 1)

    assert crew.hand_over() == []
    assert crew.rota.due == QUANTUM
    crew.now = QUANTUM
    assert crew.hand_over() == [1]
    assert crew.holdings() == {2: 1}


def test_what_is_recalled_is_not_recalled_again():
    rota = Rota(1)
    rota.ask(1, 1)
    rota.took(next(rota.grants()), 7, 0.0)
    rota.ask(2, 1)

    assert [lease.worker for lease in rota.recalls(1.0, never)] == [7]
    assert rota.recalls(2.0, never) == []
    assert rota.held(1) == 0
    assert rota.due == math.inf


def test_who_uses_a_worker_keeps_it_rather_than_who_does_not():
    crew = Crew(2)
    crew.rota.ask(1, 2)
    crew.grant()
    crew.rota.ask(2, 1)

    assert crew.hand_over(idle=always, again=False) == [1]
    assert crew.holdings() == {1: 1, 2: 1}


def test_who_is_over_holds_nothing_and_wants_nothing():
    crew = Crew(2)
    crew.rota.ask(1, 3)
    crew.grant()
    crew.rota.forget(1)
    crew.rota.ask(2, 1)
    crew.rota.give_up(2)

    assert crew.grant() == []
    assert not crew.rota.leases


@given(
    most=st.integers(1, 5),
    wants=st.lists(st.integers(1, 6), min_size=1, max_size=8),
)
def test_turns_are_fair_in_the_long_run(most, wants):
    crew = Crew(most)
    for run, count in enumerate(wants):
        crew.rota.ask(run, count)
    crew.grant()
    seconds = Counter()
    for _ in range(40 * len(wants)):
        while crew.hand_over():
            pass
        assert len(crew.rota.leases) == min(most, sum(wants))
        assert crew.rota.due > crew.now
        crew.now += QUANTUM
        seconds.update(crew.holdings())

    # Nobody has less than half of an equal share, or of what it wants.
    rounds = 40 * len(wants)
    share = most / len(wants)
    for run, count in enumerate(wants):
        assert seconds[run] >= min(share, count) * rounds / 2 - 1


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("aglfu")), max_size=60))
def test_no_story_breaks_the_books(story):
    crew = Crew(2)
    rota = crew.rota
    for run, what in story:
        crew.now += QUANTUM / 3
        if what == "a":
            rota.ask(run, 2)
        elif what == "g":
            crew.grant()
        elif what == "l":
            for key in [key for key in rota.leases if key[0] == run]:
                rota.left(*key)
        elif what == "f":
            rota.forget(run)
        else:
            rota.recalls(crew.now, never)
        assert len(rota.leases) <= rota.most
        assert rota.recalled <= set(rota.leases)
        assert all(count > 0 for count in rota.wanted.values())
