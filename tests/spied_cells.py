"""Cells of no content, run by the real launcher in real processes: what each saw of its surroundings goes into a file.

Imported by name in the process of each cell. What a cell does there is the last word of its `lock`, which is no part of
its identity.
"""

from __future__ import annotations

import json
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vlmbench.config import schema
from vlmbench.grid import children
from vlmbench.grid.children import Start

SEEN = ("CUDA_VISIBLE_DEVICES", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def cell(output: Path, does: str = "ends", *, seed: int = 0, **trainer: Any) -> schema.CellConfig:
    """Return a cell; `does` is what its process does: it `ends`, `dies`, or `saves` or `hangs` when asked to stop."""
    return schema.CellConfig(
        model=schema.ContrastiveModelConfig(name="tiny_clip", source="package:tiny_clip", role="generalist"),
        task=schema.DiagnosisTaskConfig(resamples=100),
        finetune=schema.LoraConfig(lr=1e-3, scope="vision", classifier="text"),  # which shares nothing
        domain=schema.PhantomDomainConfig(name="p", modality="oct", modalities=["oct"], patients=20),
        trainer=schema.TrainerConfig(**trainer),
        output=str(output),
        lock=f"{output}/{does}",
        seed=seed,
    )


def spied_child(start: Start, send: Connection) -> None:
    """Take the place of `run_child`: the real one, around work that only notes what it sees."""
    children.prepare, children.run_prepared = prepared, work  # type: ignore[assignment]
    children.run_child(start, send)


def prepared(config: schema.CellConfig) -> Any:
    return SimpleNamespace(config=config, folder=Path(config.output) / f"cell-{config.seed}", done=False)


def work(prepared: Any) -> dict[str, Any]:
    import torch

    config = prepared.config
    does = Path(config.lock).name
    if does == "saves":
        signal.signal(signal.SIGTERM, lambda *_: save(config))
    if does == "hangs":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(config, began=time.monotonic(), pid=os.getpid(), threads=torch.get_num_threads(), cuda=cuda_is_untouched())
    if does == "dies" and os.environ.get("RANK") != "0":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.6 if does == "ends" else 120)
    note(config, ended=time.monotonic())
    return {"status": "done", "primary_metric": "auroc", "metrics": {}}


def save(config: schema.CellConfig) -> None:
    note(config, saved=True)
    os._exit(75)


def cuda_is_untouched() -> bool:
    import torch

    return not torch.cuda.is_initialized() and not torch.cuda._is_in_bad_fork()


def note(config: schema.CellConfig, **said: Any) -> None:
    line = json.dumps({"seed": config.seed, **{key: os.environ.get(key) for key in SEEN}, **said}) + "\n"
    handle = os.open(Path(config.output) / "seen.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(handle, line.encode())
    os.close(handle)


def notes(output: Path) -> list[dict[str, Any]]:
    """Return what cells have noted so far."""
    path = output / "seen.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
