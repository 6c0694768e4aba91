"""The registry of all signals. Score breakdowns list signals in this order."""

from __future__ import annotations

from collections.abc import Sequence

from hyblink.app.core.registry import Registry
from hyblink.app.core.types.ranking import Signal
from hyblink.ranker.leg import Leg
from hyblink.ranker.query_forms import QueryForms
from hyblink.ranker.signals import bm25, dense, vdr
from hyblink.ranker.signals.definition import SignalDefinition
from hyblink.ranker.signals.joint import JOINT, joint_leg

SIGNALS: Registry[SignalDefinition] = Registry("signal", lambda signal: signal.name)
SIGNALS.add(
    SignalDefinition(
        Signal.BM25, "words (BM25)", "#2563eb", bm25.leg, 0.0, bm25.tokens, features=(("bm25_z", False),),
        needs_encoder=False,
    ),
    SignalDefinition(
        Signal.VDR, "vocabulary (VDR)", "#d97706", vdr.leg, 0.0, vdr.tokens, features=(("vdr_z", False),)
    ),
    SignalDefinition(
        Signal.DENSE, "meaning (dense)", "#059669", dense.leg, -1.0,
        features=(("dense_z", False), ("dense", True)), starts_first=True,
    ),
    SignalDefinition(
        Signal.PRIOR, "name alone (prior)", "#0891b2", lower_bound=0.0,
        features=(("match", False), ("title", False), ("unsupported", False), ("prior", True)),
    ),
    SignalDefinition(
        Signal.CONTEXT, "words around it", "#65a30d", features=(("context_z", False), ("context", True))
    ),
    SignalDefinition(Signal.CROSS, "re-ranker", "#9333ea", features=(("cross", True),)),
    SignalDefinition(Signal.COHERENCE, "neighbours (coherence)", "#be185d", features=(("coherence", True),)),
    SignalDefinition(Signal.EVIDENCE, "documents found (evidence)", "#7c2d12", features=(("evidence", True),)),
    SignalDefinition(Signal.ENTITY, "entities of the query", "#dc2626", lower_bound=0.0),
)  # fmt: skip


def proposing() -> tuple[Signal, ...]:
    """The signals that generate candidates (have a leg) and can be requested in a search."""
    return tuple(row.name for row in SIGNALS.values() if row.leg is not None)


def signal_named(name: str) -> Signal:
    """The signal with this name. Raises InvalidInputError for an unknown one."""
    return SIGNALS.of(name.strip()).name


def grouped(forms: QueryForms, signals: Sequence[Signal]) -> list[tuple[Signal, ...]]:
    """Group the signals by leg: BM25 and VDR together if the engine supports it, all others alone.

    Signals that other legs wait for come first.
    """
    known = sorted(signals, key=lambda name: not SIGNALS.of(name).starts_first)
    alone = [name for name in known if name not in JOINT]
    joint = tuple(name for name in JOINT if name in signals)
    if forms.form in forms.snapshot.joint and len(joint) == len(JOINT):
        return [*((name,) for name in alone), joint]
    return [(name,) for name in (*alone, *joint)]


def leg_of(forms: QueryForms, signals: tuple[Signal, ...]) -> Leg | None:
    """Build the leg of one group from `grouped`; None if the snapshot has nothing for it to search.

    Raises InvalidInputError if a signal is unknown.
    """
    if signals == JOINT:
        return joint_leg(forms.snapshot, forms.query, forms.form, forms.weights)
    (name,) = signals
    make = SIGNALS.of(name).leg
    return make(forms) if make is not None else None
