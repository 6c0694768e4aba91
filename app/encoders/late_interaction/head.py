"""The late-interaction head in torch. `model.py` in this package has the formula.

Shapes: B texts, L tokens of a text with [CLS] and [SEP], H hidden.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.encoders.late_interaction.correction import SHARPEST
from hyblink.app.encoders.loading.adapters import LATE_INTERACTION, adapter_manifest
from hyblink.app.encoders.loading.in_torch import cut_layers, load_sentence_transformer


class InteractionHead(nn.Module):  # type: ignore[misc]
    """Maps token states to unit vectors and to the factors of token weights. Untrained, it is idf-weighted MaxSim."""

    def __init__(self, vocabulary: int, hidden: int) -> None:
        super().__init__()
        self.project = nn.Linear(hidden, hidden, bias=False)
        nn.init.eye_(self.project.weight)
        self.weigh = nn.Linear(hidden, 1)
        nn.init.zeros_(self.weigh.weight)
        nn.init.zeros_(self.weigh.bias)
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.register_buffer("idf", torch.ones(vocabulary))

    def forward(
        self, states_BLH: torch.Tensor, ids_BL: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(unit vectors (B, L, H), learned corrections (B, L), idf in the training passages (B, L)).

        The product of the last two is a token's weight in a query.
        """
        vectors_BLH = nn.functional.normalize(self.project(states_BLH), dim=-1)
        learned_BL = torch.exp(SHARPEST * torch.tanh(self.weigh(states_BLH)[..., 0] / SHARPEST))
        return vectors_BLH, learned_BL, self.idf[ids_BL]


def save_head(head: InteractionHead, folder: Path) -> list[str]:
    """Write a head to `folder` in half precision and return the names of the files."""
    tensors = {name: tensor.detach().half().contiguous().cpu() for name, tensor in head.state_dict().items()}
    save_file(tensors, str(folder / "model.safetensors"))
    return ["model.safetensors"]


def load_head(folder: Path, vocabulary: int, hidden: int) -> InteractionHead:
    """Load the head in an already checked folder. Raises EncoderUnavailableError if it does not fit these sizes."""
    head = InteractionHead(vocabulary, hidden)
    try:
        head.load_state_dict({name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()})
    except (OSError, RuntimeError, SafetensorError) as error:
        raise EncoderUnavailableError(f"cannot load the late interaction {folder.name!r}: {error}") from error
    head.eval()
    return head


class Tokens(nn.Module):  # type: ignore[misc]
    """The lower layers of a backbone with a head: token ids to the head's outputs. L is at most `positions`."""

    def __init__(self, transformer: Any, head: InteractionHead) -> None:
        super().__init__()
        self.transformer, self.head = transformer, head
        self.positions = int(transformer.config.max_position_embeddings)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        states_BLH = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        vectors_BLH, learned_BL, idf_BL = self.head(states_BLH, input_ids)
        return vectors_BLH, learned_BL, idf_BL


def load_tokens(model: str, device: str) -> tuple[Tokens, Any]:
    """(network, tokenizer) of a late-interaction folder. Raises EncoderUnavailableError if it cannot be loaded."""
    folder = Path(model).expanduser()
    manifest = adapter_manifest(folder, LATE_INTERACTION, "late interaction", "model.safetensors")
    made = load_sentence_transformer(str(manifest["base"]), device)
    cut_layers(made[0].model, int(manifest.get("layers", 0)))
    words = made[0].model.get_input_embeddings().weight
    head = load_head(folder, words.shape[0], words.shape[1]).to(made.device)
    return Tokens(made[0].model, head).eval(), made.tokenizer.backend_tokenizer
