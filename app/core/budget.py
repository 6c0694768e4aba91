"""What one request may cost: CPU seconds and memory. Every stage that can be dear asks its budget, and stops in time.

A request's budget is a context variable. Work without one, such as a command or a job, is not limited. Threads that
work for a request are entered with `carried`. CPU time is that of the threads; the forward pass of a model counts once
for each thread that computes it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from hyblink.app.core.errors import OverBudgetError, RequestLeftError
from hyblink.app.core.types.budget import BudgetReport

_P = ParamSpec("_P")
_R = TypeVar("_R")


_MARGIN = 0.95
"""Models and linking end at this share of what they may use: they ask between steps, and a step takes some time."""
_PLAIN_MARGIN = 0.65
"""Plain work that can be left out ends at this share, because the rest of the answer has to be made, too."""


@dataclass(frozen=True, slots=True)
class Costs:
    """The limits of a request: `cpu_s` in all, at most `plain_cpu_s` without models and linking; `memory` in bytes."""

    cpu_s: float
    plain_cpu_s: float
    memory: int


class Budget:
    """What is left for one request. Thread-safe.

    Models and linking share ``cpu_s - plain_cpu_s``, so that what they find can still be presented.
    """

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._lock = threading.Lock()
        self._seen = threading.local()
        self._plain = self._dear = 0.0
        self._plain_limit = costs.plain_cpu_s * _PLAIN_MARGIN
        self._dear_limit = (costs.cpu_s - costs.plain_cpu_s) * _MARGIN
        self._bytes = 0
        self._left_out: dict[str, None] = {}
        self._left = False

    def leave(self) -> None:
        """Note that nobody waits for the answer any more: the next `check` raises RequestLeftError."""
        self._left = True

    def enter(self) -> None:
        """Begin to count the CPU time of this thread from now on."""
        self._seen.at = time.thread_time()

    @property
    def factor(self) -> float:
        """By what this thread's time is multiplied; 0 while it does plain work."""
        return getattr(self._seen, "factor", 0.0)

    def count(self) -> None:
        """Count this thread's time since it was last counted."""
        now = time.thread_time()
        before = getattr(self._seen, "at", now)
        self._seen.at = now
        factor = self.factor
        with self._lock:
            if factor:
                self._dear += (now - before) * factor
            else:
                self._plain += now - before

    @contextmanager
    def dear(self, factor: float) -> Iterator[None]:
        """Count this thread's time inside as that of models and linking, times `factor`."""
        self.count()
        before, self._seen.factor = self.factor, factor
        try:
            yield
        finally:
            self.count()
            self._seen.factor = before

    def spent(self) -> bool:
        """Whether nothing is left for what this thread is doing: plain work, or models and linking."""
        self.count()
        if self.factor:
            return self._dear >= self._dear_limit
        return self._plain >= self._plain_limit

    @contextmanager
    def part(self, share: float) -> Iterator[None]:
        """Let models and linking use at most this share of what they have left, so that later stages have the rest."""
        before = self._dear_limit
        self._dear_limit = self._dear + max(0.0, before - self._dear) * share
        try:
            yield
        finally:
            self._dear_limit = before

    def check_presence(self) -> None:
        """Raise RequestLeftError if the client has gone."""
        if self._left:
            raise RequestLeftError("the client has gone")

    def check(self) -> None:
        """Raise OverBudgetError if nothing is left, and RequestLeftError if the client has gone."""
        self.check_presence()
        if self.spent():
            raise self.over()

    def over(self) -> OverBudgetError:
        """The error that says how much was allowed, and what moves it."""
        costs = self._costs
        return OverBudgetError(
            "the request costs more than it may: ask for less",
            expected=f"at most {costs.cpu_s:g} CPU-seconds (api.request_cpu_s), {costs.plain_cpu_s:g} of them without "
            f"models and linking (api.request_plain_cpu_s), and {costs.memory} bytes (api.request_memory_bytes)",
        )

    def hold(self, size: int) -> bool:
        """Whether `size` more bytes fit into the request's memory; they are counted if they do."""
        with self._lock:
            if self._bytes + size > self._costs.memory:
                return False
            self._bytes += size
            return True

    def leave_out(self, what: str) -> None:
        """Say what is not in the answer, because the budget did not suffice."""
        with self._lock:
            self._left_out[what] = None

    def report(self) -> BudgetReport:
        """What was allowed, what was used so far, and what was left out."""
        self.count()
        return BudgetReport(self._costs.cpu_s, round(self._plain + self._dear, 3), tuple(self._left_out))


BUDGET: ContextVar[Budget | None] = ContextVar("budget", default=None)


def check_budget() -> None:
    """Raise OverBudgetError or RequestLeftError if the current request may not go on."""
    budget = BUDGET.get()
    if budget is not None:
        budget.check()


def check_presence() -> None:
    """Raise RequestLeftError if the client of the current request has gone. Begins to count this thread's time."""
    budget = BUDGET.get()
    if budget is not None:
        budget.count()
        budget.check_presence()


def within_budget(what: str) -> bool:
    """Whether the current request may go on. If not, the answer says that `what` is left out.

    Raises RequestLeftError if the client has gone.
    """
    budget = BUDGET.get()
    if budget is None:
        return True
    try:
        budget.check()
    except OverBudgetError:
        budget.leave_out(what)
        return False
    return True


def leave_out(what: str) -> None:
    """Say what is not in the answer to the current request, because its budget did not suffice."""
    budget = BUDGET.get()
    if budget is not None:
        budget.leave_out(what)


def holds(size: int, what: str) -> bool:
    """Whether the current request may hold `size` more bytes. If not, the answer says that `what` is left out."""
    budget = BUDGET.get()
    if budget is None or budget.hold(size):
        return True
    budget.leave_out(what)
    return False


def check_memory(size: int) -> None:
    """Count `size` more bytes that the current request holds. Raises OverBudgetError if it may not hold them."""
    budget = BUDGET.get()
    if budget is not None and not budget.hold(size):
        raise budget.over()


def models_may_go_on(what: str) -> bool:
    """Whether the current request may ask a model for more. If not, the answer says that `what` is left out.

    Raises RequestLeftError if the client has gone.
    """
    with linking_cost():
        return within_budget(what)


@contextmanager
def forward_pass(threads: int) -> Iterator[None]:
    """Count a model's forward pass by so many threads. Raises OverBudgetError if nothing is left for one."""
    budget = BUDGET.get()
    if budget is None:
        yield
        return
    with budget.dear(threads):
        budget.check()
        yield


@contextmanager
def unchecked(threads: float) -> Iterator[None]:
    """Let a short model call end whatever it costs, and count it afterwards: others wait for its result, too."""
    budget = BUDGET.get()
    if budget is None:
        yield
        return
    token = BUDGET.set(None)
    try:
        with budget.dear(threads):
            yield
    finally:
        BUDGET.reset(token)


@contextmanager
def uncharged() -> Iterator[None]:
    """Do not count what is done inside, because it is done once for all requests, such as the loading of a model."""
    budget = BUDGET.get()
    if budget is None:
        yield
        return
    token = BUDGET.set(None)
    budget.count()
    try:
        yield
    finally:
        budget.enter()
        BUDGET.reset(token)


@contextmanager
def linking_cost(share: float = 1.0) -> Iterator[None]:
    """Count what is done inside as linking, which may use this share of what models and linking have left."""
    budget = BUDGET.get()
    if budget is None:
        yield
        return
    with budget.dear(1.0), budget.part(share) if share < 1 else nullcontext():
        yield


def check_models() -> None:
    """Raise OverBudgetError if nothing is left for models and linking, and RequestLeftError if the client has gone."""
    with linking_cost():
        check_budget()


def report_of_budget() -> BudgetReport | None:
    """The report on the current request's budget; None if it has none."""
    budget = BUDGET.get()
    return None if budget is None else budget.report()


def carried(run: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function for another thread, there counted on the budget of the request that calls `carried`."""
    budget = BUDGET.get()
    if budget is None:
        return run
    factor = budget.factor
    context = copy_context()

    def counted(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        budget.enter()
        try:
            if factor:
                with budget.dear(factor):
                    return run(*args, **kwargs)
            return run(*args, **kwargs)
        finally:
            budget.count()

    def entered(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        return context.copy().run(counted, *args, **kwargs)

    return entered
