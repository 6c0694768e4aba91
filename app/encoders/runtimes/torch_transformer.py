"""A transformer encoder in torch: a sentence-transformers model on a CPU or GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from hyblink.app.core.types.arrays import VectorArray
from hyblink.app.encoders.loading.tokens import Ids, TextTokens, padded
from hyblink.app.encoders.runtimes.transformer import Floats, Runtime


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

    def _run(self, rows: Sequence[Ids]) -> Any:
        ids_BL, mask_BL = padded(rows, self.tokens.padding)
        features = {"input_ids": torch.from_numpy(ids_BL), "attention_mask": torch.from_numpy(mask_BL).long()}
        return self.model({name: value.to(self.model.device) for name, value in features.items()})

    def _groups(self, rows: Sequence[Ids]) -> list[list[int]]:
        order = sorted(range(len(rows)), key=lambda at: -len(rows[at]))
        return [order[at : at + self._batch_size] for at in range(0, len(order), self._batch_size)]

    def vectors(self, rows: Sequence[Ids]) -> VectorArray:
        made = np.empty((len(rows), self.dimension), dtype=np.float32)
        with torch.inference_mode():
            for group in self._groups(rows):
                vectors = self._run([rows[at] for at in group])["sentence_embedding"].float()
                made[group] = torch.nn.functional.normalize(vectors, dim=-1).cpu().numpy()
        return made

    def states(self, rows: Sequence[Ids]) -> list[Floats]:
        return self.both(rows)[1]

    def both(self, rows: Sequence[Ids]) -> tuple[VectorArray, list[Floats]]:
        made: VectorArray | None = None
        states: dict[int, Floats] = {}
        with torch.inference_mode():
            for group in self._groups(rows):
                out = self._run([rows[at] for at in group])
                vectors = torch.nn.functional.normalize(out["sentence_embedding"].float(), dim=-1).cpu().numpy()
                if made is None:
                    made = np.empty((len(rows), vectors.shape[1]), dtype=np.float32)
                made[group] = vectors
                tokens_BLH = out["token_embeddings"].float().cpu().numpy()
                states |= {at: own[: len(rows[at])] for at, own in zip(group, tokens_BLH, strict=True)}
        assert made is not None
        return made, [states[at] for at in range(len(rows))]
