"""A transformer encoder in torch: a sentence-transformers model on a CPU or GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from hyblink.app.core.budget import forward_pass
from hyblink.app.core.types.arrays import VectorArray
from hyblink.app.encoders.graphs.parts import Floats
from hyblink.app.encoders.loading.tokens import Ids, TextTokens, padded
from hyblink.app.encoders.runtimes.transformer import Runtime


def tokens_of(model: Any) -> TextTokens:
    """The tokenizer of a sentence-transformers model, a copy without truncation and padding."""
    from tokenizers import Tokenizer

    own = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
    own.no_truncation()
    own.no_padding()
    lower = bool(getattr(model[0] if hasattr(model, "__getitem__") else model, "do_lower_case", False))
    return TextTokens(own, int(model.tokenizer.pad_token_id), lower=lower)


class TorchTransformer:
    """The `Transformer` of a sentence-transformers model, or of anything that has its tokenizer, device and call."""

    runtime: Runtime = "torch"

    def __init__(self, model: Any, batch_size: int = 32) -> None:
        self.model = model
        self.tokens = tokens_of(model)
        self._batch_size = batch_size

    @property
    def dimension(self) -> int:
        return int(self.model.get_embedding_dimension())

    @property
    def longest(self) -> int:
        """The largest number of tokens of a row, special tokens included."""
        config = self.model[0].model.config
        longest = int(getattr(config, "max_position_embeddings", 512))
        # Where positions count from the padding token on, the table has some that are never used.
        shifted = config.model_type in {"roberta", "xlm-roberta", "mpnet", "camembert"}
        return longest - 2 if shifted else longest

    def word_embeddings(self) -> Any:
        """The model's word embeddings, a torch Embedding."""
        return self.model[0].model.get_input_embeddings()

    def word_vectors(self) -> Floats:
        made: Floats = self.word_embeddings().weight.detach().float().cpu().numpy()
        return made

    def _passes(self, rows: Sequence[Ids]) -> Iterator[tuple[list[int], Any, VectorArray]]:
        """(indexes of rows, the model's output, their vectors) of each pass, longest rows first."""
        order = sorted(range(len(rows)), key=lambda at: -len(rows[at]))
        for first in range(0, len(order), self._batch_size):
            group = order[first : first + self._batch_size]
            ids_BL, mask_BL = padded([rows[at] for at in group], self.tokens.padding)
            features = {"input_ids": torch.from_numpy(ids_BL), "attention_mask": torch.from_numpy(mask_BL).long()}
            with forward_pass(torch.get_num_threads()), torch.inference_mode():
                out = self.model({name: value.to(self.model.device) for name, value in features.items()})
                vectors = torch.nn.functional.normalize(out["sentence_embedding"].float(), dim=-1)
            yield group, out, vectors.cpu().numpy()

    def vectors(self, rows: Sequence[Ids]) -> VectorArray:
        made = np.empty((len(rows), self.dimension), dtype=np.float32)
        for group, _, vectors in self._passes(rows):
            made[group] = vectors
        return made

    def states(self, rows: Sequence[Ids]) -> list[Floats]:
        return self.both(rows)[1]

    def both(self, rows: Sequence[Ids]) -> tuple[VectorArray, list[Floats]]:
        found: dict[int, tuple[VectorArray, Floats]] = {}
        for group, out, vectors in self._passes(rows):
            tokens_BLH = out["token_embeddings"].float().cpu().numpy()
            for at, vector, own in zip(group, vectors, tokens_BLH, strict=True):
                found[at] = vector, own[: len(rows[at])]
        made, states = zip(*(found[at] for at in range(len(rows))), strict=True)
        return np.stack(made), list(states)
