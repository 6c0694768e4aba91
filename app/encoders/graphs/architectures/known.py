"""The registry of architectures."""

from __future__ import annotations

from hyblink.app.core.registry import Registry
from hyblink.app.encoders.graphs.architectures.architecture import Architecture
from hyblink.app.encoders.graphs.architectures.bert import BERT
from hyblink.app.encoders.graphs.architectures.distilbert import DISTILBERT
from hyblink.app.encoders.graphs.architectures.electra import ELECTRA
from hyblink.app.encoders.graphs.architectures.mpnet import MPNET
from hyblink.app.encoders.graphs.architectures.roberta import ROBERTA, XLM_ROBERTA

ARCHITECTURES: Registry[Architecture] = Registry("architecture", lambda item: item.kind)
ARCHITECTURES.add(BERT, DISTILBERT, ELECTRA, MPNET, ROBERTA, XLM_ROBERTA)
