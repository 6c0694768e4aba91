"""`python -m tests.benchmarks.trainers ours|theirs PAIRS PEER`: one of two trainers in a process; prints pairs/s."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from hyblink.training.data.rows import read_rows
from hyblink.training.recipes import recipe
from hyblink.training.run_config import SHIPPED_BACKBONE
from tests.benchmarks.training import BATCH, STEPS, TOKENS

_SKIPPED = 8
"""First steps that are not counted."""
_RATE = 2e-5


def ours(pairs: Path) -> list[float]:
    """When each step of our loop ended."""
    from hyblink.training.run import train_model

    changes = {"tuning": "full", "learning_rate": str(_RATE), "batch": str(BATCH), "steps": str(STEPS), "negatives": "0",
               "query_tokens": str(TOKENS), "passage_tokens": str(TOKENS), "checkpoint_every": "100000"}  # fmt: skip
    ended: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        train_model(
            recipe("dense", changes), [pairs], work / "model", cache=work,
            progress=lambda _step, _loss: ended.append(time.perf_counter()),
        )  # fmt: skip
    return ended


def theirs(pairs: Path, peer: Path) -> list[float]:
    """When each step of sentence-transformers' trainer ended."""
    sys.path.append(str(peer))
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    from hyblink.app.encoders.loading.in_torch import load_sentence_transformer

    ended: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            ended.append(time.perf_counter())

    model = load_sentence_transformer(SHIPPED_BACKBONE, "cpu")
    model.max_seq_length = TOKENS
    rows = read_rows(pairs)
    dataset = Dataset.from_dict(
        {"anchor": [row.query for row in rows], "positive": [row.positives[0].joined for row in rows]}
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder, max_steps=STEPS, per_device_train_batch_size=BATCH, learning_rate=_RATE, warmup_steps=STEPS // 10,
            save_strategy="no", report_to="none", logging_strategy="no", use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        SentenceTransformerTrainer(
            model, args=arguments, train_dataset=dataset, loss=MultipleNegativesRankingLoss(model, scale=20.0),
            callbacks=[Clock()],
        ).train()  # fmt: skip
    return ended


if __name__ == "__main__":
    which, pairs, peer = sys.argv[1:]
    ended = ours(Path(pairs)) if which == "ours" else theirs(Path(pairs), Path(peer))
    print(BATCH * (len(ended) - _SKIPPED) / (ended[-1] - ended[_SKIPPED - 1]))
