"""Score fusion methods, one module each, named as in the literature."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hyblink.app.core.types.ranking import FusionName
from hyblink.ranker.fusion.comb_mnz import comb_mnz
from hyblink.ranker.fusion.comb_sum import comb_sum
from hyblink.ranker.fusion.inputs import Floats, FusionInput
from hyblink.ranker.fusion.isr import isr
from hyblink.ranker.fusion.rrf import rrf
from hyblink.ranker.fusion.weighted_sum import weighted_sum

FUSIONS: Mapping[FusionName, Callable[[FusionInput], Floats]] = {
    "weighted_sum": weighted_sum,
    "rrf": rrf,
    "comb_sum": comb_sum,
    "comb_mnz": comb_mnz,
    "isr": isr,
}

__all__ = ["FUSIONS", "FusionInput", "comb_mnz", "comb_sum", "isr", "rrf", "weighted_sum"]
