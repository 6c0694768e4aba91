"""A tiny transformer and made-up training rows: what training is tested with."""

from __future__ import annotations

import random
from pathlib import Path

from hyblink.training.data.rows import Text, TrainingRow, write_jsonl

THINGS = [
    "apple",
    "river",
    "engine",
    "planet",
    "doctor",
    "guitar",
    "castle",
    "forest",
    "window",
    "market",
    "silver",
    "tiger",
]
VERBS = ["moves", "breaks", "shines", "grows", "sleeps", "sings", "falls", "waits"]


def tiny_model(folder: Path, *, layers: int = 1, hidden: int = 32, seed: int = 0, dropout: float = 0.1) -> Path:
    """A sentence-transformers folder: a random BERT with the shipped backbone's tokenizer cut to the words used here."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = [
        "[PAD]",
        *(f"[unused{n}]" for n in range(4)),
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        ".",
        "what",
        "the",
        "a",
        "and",
        "when",
    ]
    vocabulary = [*words, *THINGS, *VERBS]
    source = folder / "bert"
    source.mkdir(parents=True)
    (source / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = BertTokenizerFast(vocab={token: at for at, token in enumerate(vocabulary)})
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=4,
        intermediate_size=2 * hidden, max_position_embeddings=64, hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    BertModel(config).save_pretrained(source)
    tokenizer.save_pretrained(source)
    transformer = Transformer(str(source), max_seq_length=32)
    model = SentenceTransformer(modules=[transformer, Pooling(hidden, "mean")], device="cpu")
    model.save(str(folder / "model"), create_model_card=False)
    return folder / "model"


def tiny_rows(count: int, *, negatives: int = 4, seed: int = 0, teacher: bool = False) -> list[TrainingRow]:
    """Rows in which a passage answers a query that names the same thing and verb."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        thing, verb = rng.choice(THINGS), rng.choice(VERBS)
        wrong = [(rng.choice(THINGS), rng.choice(VERBS)) for _ in range(3 * negatives)]
        texts = [
            Text(f"a {t} {v} and the {t} waits.", id=f"{number}-{n}")
            for n, (t, v) in enumerate(wrong)
            if (t, v) != (thing, verb)
        ]
        positive = Text(f"the {thing} {verb} and a {thing} waits.", id=f"{number}-p")
        rows.append(
            TrainingRow(
                f"what {verb} when the {thing} {verb}",
                (positive,),
                tuple(texts[:negatives]),
                (3.0,) if teacher else (),
                tuple(1.0 - 0.1 * n for n in range(negatives)) if teacher else (),
                id=str(number),
            )
        )
    return rows


def tiny_rows_file(folder: Path) -> Path:
    """Forty rows with a teacher's scores, as a file."""
    path = folder / "rows.jsonl"
    write_jsonl(path, tiny_rows(40, teacher=True))
    return path
