"""Query and passage prefixes of model families."""

from __future__ import annotations

from hyblink.app.encoders.loading.prefixes import prefixes_for


def test_prefixes_are_by_family_never_by_guess() -> None:
    assert prefixes_for("intfloat/multilingual-e5-base").passage == "passage: "
    assert prefixes_for("BAAI/bge-m3").query == ""
    assert prefixes_for("BAAI/bge-small-en-v1.5").query.startswith("Represent this sentence")
    assert prefixes_for("somebody/elsewhere") == prefixes_for("")
