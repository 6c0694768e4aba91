"""The budget of a request: what counts, what stops, what is said."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from hyblink.app.core import budget as module
from hyblink.app.core.budget import (
    BUDGET,
    Budget,
    Costs,
    carried,
    check_budget,
    check_models,
    forward_pass,
    holds,
    linking_cost,
    models_may_go_on,
    report_of_budget,
    uncharged,
    unchecked,
    within_budget,
)
from hyblink.app.core.errors import OverBudgetError, RequestLeftError

COSTS = Costs(cpu_s=10, plain_cpu_s=2, memory=1000)


class Clock:
    """CPU time by thread, which tests move."""

    def __init__(self) -> None:
        self.own: dict[int, float] = {}

    def __call__(self) -> float:
        return self.own.get(threading.get_ident(), 0.0)

    def work(self, seconds: float) -> None:
        self.own[threading.get_ident()] = self() + seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module.time, "thread_time", made)
    return made


@pytest.fixture
def budget(clock: Clock) -> Iterator[Budget]:
    made = Budget(COSTS)
    made.enter()
    token = BUDGET.set(made)
    yield made
    BUDGET.reset(token)


def used() -> float:
    report = report_of_budget()
    assert report is not None
    return report.used_s


def test_without_a_budget_nothing_is_limited() -> None:
    check_budget()
    check_models()
    assert within_budget("it")
    assert holds(10**15, "it")
    assert report_of_budget() is None


def test_plain_work_has_its_own_limit(clock: Clock, budget: Budget) -> None:
    clock.work(1.2)
    check_budget()
    assert within_budget("highlights")
    clock.work(0.2)
    with pytest.raises(OverBudgetError, match=r"at most 10 CPU-seconds \(api.request_cpu_s\), 2 of them"):
        check_budget()
    assert not within_budget("highlights")
    check_models()  # models have theirs
    assert budget.report().left_out == ("highlights",)


def test_a_forward_pass_counts_for_each_thread(clock: Clock, budget: Budget) -> None:
    with forward_pass(threads=4):
        clock.work(1.5)
    assert used() == 6.0
    assert models_may_go_on("tokens")
    with forward_pass(4):
        clock.work(1)
    assert used() == 10.0
    with pytest.raises(OverBudgetError), forward_pass(4):
        pytest.fail("nothing is left for it")
    assert not models_may_go_on("tokens")
    check_budget()  # what was found can be presented
    assert budget.report().left_out == ("tokens",)


def test_an_early_stage_gets_a_part(clock: Clock, budget: Budget) -> None:
    with linking_cost(0.5):
        clock.work(3.7)
        check_budget()
        clock.work(0.2)
        with pytest.raises(OverBudgetError):
            check_budget()
    with linking_cost():
        check_budget()  # 3.9 of 7.6
        clock.work(4)
        with pytest.raises(OverBudgetError):
            check_budget()


def test_threads_of_a_pool_count(clock: Clock, budget: Budget) -> None:
    with ThreadPoolExecutor(2) as pool:
        pool.submit(clock.work, 100).result()  # of another request
        pool.submit(carried(clock.work), 1.0).result()
        assert used() == 1.0
        with linking_cost():
            pool.submit(carried(clock.work), 3).result()
        assert used() == 4.0
        assert within_budget("plain work")
        with pytest.raises(OverBudgetError):
            pool.submit(carried(lambda: (clock.work(0.6), check_budget()))).result()


def test_what_is_done_for_all_is_not_charged(clock: Clock, budget: Budget) -> None:
    with uncharged():
        clock.work(50)
        assert BUDGET.get() is None
    assert used() == 0.0
    with unchecked(2):
        clock.work(50)
        check_models()  # others wait for it
    assert used() == 100.0


def test_memory(budget: Budget) -> None:
    assert holds(600, "later hits")
    assert not holds(500, "later hits")
    assert holds(400, "later hits")
    assert budget.report().left_out == ("later hits",)


def test_a_client_that_leaves_ends_its_request(budget: Budget) -> None:
    budget.leave()
    for stage in (check_budget, check_models, lambda: within_budget("x"), lambda: models_may_go_on("x")):
        with pytest.raises(RequestLeftError):
            stage()
