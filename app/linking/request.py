"""Validation of linking requests."""

from __future__ import annotations

from collections.abc import Sequence

from hyblink.app.core.checks import check_text
from hyblink.app.core.errors import InvalidInputError, TooLargeError
from hyblink.app.core.settings import LinkSettings
from hyblink.app.core.types.linking import (
    LINK_SIGNALS,
    LinkRequest,
)
from hyblink.app.linking.mention_detection import (
    splits_a_character,
)


def check_request(request: LinkRequest, limit: LinkSettings) -> None:
    """Validate a linking request. Raises InvalidInputError, or TooLargeError for too many or too long texts."""
    if not request.texts:
        raise InvalidInputError("nothing to link", received=[], expected="at least one text")
    unmarked = sum(text.mentions is None for text in request.texts)
    if unmarked > limit.max_texts:
        raise TooLargeError("too many texts", received=unmarked, expected=f"at most {limit.max_texts}")
    if len(request.texts) > max(limit.max_texts, limit.max_mentions):
        raise TooLargeError(
            "too many texts", received=len(request.texts), expected=f"at most {limit.max_mentions} with mentions"
        )
    for number, text in enumerate(request.texts):
        check_text(text.text, f"texts[{number}]")
        if len(text.text) > limit.max_text_chars:
            raise TooLargeError(
                f"texts[{number}] is too long", received=f"{len(text.text)} characters",
                expected=f"at most {limit.max_text_chars}",
            )  # fmt: skip
        check_spans(text.text, text.mentions or (), f"texts[{number}].mentions")
        for entity in text.exclude:
            check_text(entity, f"texts[{number}].exclude")
    for entity in request.exclude:
        check_text(entity, "exclude")
    if request.signals is not None and not (request.signals and set(request.signals) <= set(LINK_SIGNALS)):
        raise InvalidInputError(
            "bad signals",
            received=[str(signal) for signal in request.signals],
            expected=f"some of {', '.join(LINK_SIGNALS)}",
        )
    given = sum(len(text.mentions or ()) for text in request.texts)
    if given > limit.max_mentions:
        raise TooLargeError("too many mentions", received=given, expected=f"at most {limit.max_mentions}")
    for name, value, low, high in (
        ("candidates", request.candidates, 1, limit.max_candidates),
        ("threshold", request.threshold, 0.0, 1.0),
        ("budget_ms", request.budget_ms, 0.0, 600_000.0),
        ("coherence", request.coherence, 0.0, 100.0),
        ("joint", request.joint, 0.0, 1.0),
        ("evidence", request.evidence, 0.0, 100.0),
        ("shown", request.shown, 0, limit.max_candidates),
    ):
        if value is not None and not low <= value <= high:
            raise InvalidInputError(f"{name} is out of range", received=value, expected=f"{low} to {high}")


def check_spans(text: str, spans: Sequence[tuple[int, int]], where: str) -> None:
    """Validate mention spans, given as (start, end) in code points. They may overlap.

    Raises InvalidInputError, with `where` in the message, for a span that is empty, reversed, out of range, blank, or
    splits a character.
    """
    for number, span in enumerate(spans):
        start, end = span
        place = f"{where}[{number}]"
        if not 0 <= start < end <= len(text):
            raise InvalidInputError(
                f"{place}: bad mention", received=list(span), expected=f"0 <= start < end <= {len(text)} in code points"
            )
        if not text[start:end].strip():
            raise InvalidInputError(
                f"{place}: a mention is blank", received=list(span), expected="some visible characters"
            )
        for at in (start, end):
            if splits_a_character(text, at):
                raise InvalidInputError(
                    f"{place}: a mention cuts a character from its combining marks", received=list(span),
                    expected=f"a boundary beside code point {at}, not at it",
                )  # fmt: skip
