"""Trains a tiny model in a process of its own, so that it can be killed or be one of two."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")


def main() -> None:
    base, data, out = (Path(part) for part in sys.argv[1:4])
    recipe_name, changes = sys.argv[4], json.loads(sys.argv[5])
    from hyblink.training.recipes import recipe
    from hyblink.training.run import train_model

    config = recipe(recipe_name, {"base": str(base), **changes})
    kill_at = int(os.environ.get("KILL_AT", "0"))

    def progress(step: int, loss: float) -> None:
        print(step, repr(loss), flush=True)
        if kill_at and step == kill_at:
            os.kill(os.getpid(), 9)

    dev = Path(os.environ["DEV"]) if "DEV" in os.environ else None
    train_model(config, [data], out, cache=out.parent / "states", progress=progress, dev=dev)


if __name__ == "__main__":
    main()
