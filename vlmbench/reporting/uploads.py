"""What a record becomes at Weights & Biases: the run and its tags, its summary, its predictions, what was trained."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmbench.config.schema import WandbLoggerConfig
from vlmbench.records.store import read_predictions

SAVED = "saved"  # where a cell keeps what was trained
_MODES = ("online", "offline", "disabled")  # the further right, the less leaves the machine
_LONGEST_TAG = 64  # W&B refuses longer ones
_FACTS = ("identity", "kind", "role", "pair", "family", "modality", "exposure", "trained_on", "primary_metric")
_IDENTIFYING = ("example_id", "question", "answer", "prediction")


def run_of(config: WandbLoggerConfig, header: Mapping[str, Any], label: str) -> dict[str, Any]:
    """Return the arguments of `wandb.init` that say which run this is.

    Args:
        config: Where to, and the user's own group and tags.
        header: The record so far.
        label: Its name for people.
    """
    cell, settings = header["cell"], header["config"]
    grid = settings.get("sweep", {}).get("name", "none")
    return {
        "project": config.project,
        "entity": config.entity,
        "mode": mode_of(config.mode),
        "id": run_id(header["identity"]),
        "resume": "allow",
        "name": label,
        "group": config.group or (grid if grid != "none" else None),
        "job_type": cell["finetune"] if header["kind"] == "cell" else header["kind"],
        "tags": tags_of(header, config.tags),
        "config": {**settings, "cell": dict(cell), **{key: header.get(key) for key in _FACTS}},
    }


def mode_of(configured: str) -> str:
    """Return the mode of a run: the one that lets less out, of what is configured and what `WANDB_MODE` says.

    `wandb.init` would not look into the environment of a machine from which nothing is to leave.
    """
    asked = os.environ.get("WANDB_MODE", "")
    return max((configured, asked), key=_MODES.index) if asked in _MODES else configured


def run_id(identity: str) -> str:
    """Return the id of a cell's run: 128 of the 256 bits of its identity, half of the length that W&B admits."""
    return identity[:32]


def tags_of(header: Mapping[str, Any], own: list[str]) -> list[str]:
    """Return a run's tags: what its cell is, then the user's, each once and no longer than W&B takes."""
    cell = header["cell"]
    exposure = header.get("exposure")
    told = [
        *(cell["model"], header.get("role"), header.get("family"), cell["domain"], header.get("modality")),
        *(f"exposure-{exposure}" if exposure else "", cell["task"], cell["finetune"]),
        *own,
    ]
    return list(dict.fromkeys(str(tag)[:_LONGEST_TAG] for tag in told if tag))


def summary_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the summary of a run: each metric with the ends of its interval, costs, counts and how the cell ended."""
    flat: dict[str, Any] = {}
    for name, row in record.get("metrics", {}).items():
        flat |= {f"test/{name}": row["value"], f"test/{name}_low": row["low"], f"test/{name}_high": row["high"]}
    cost = record.get("cost", {})
    flat |= {f"seconds/{name}": value for name, value in cost.get("seconds", {}).items()}
    flat |= {f"cost/peak_memory_{name}": value for name, value in cost.get("peak_memory_bytes", {}).items()}
    flat |= {f"n/{name}": value for name, value in record.get("n", {}).items()}
    if parts := cost.get("parameters"):
        flat |= {
            f"cost/{kind}_parameters": sum(part[kind] for part in parts.values()) for kind in ("trainable", "total")
        }
    if "saved_bytes" in cost:
        flat["cost/saved_bytes"] = cost["saved_bytes"]
    primary = record.get("metrics", {}).get(record.get("primary_metric"))
    if primary:  # under one name, so that cells of several tasks can be put into one chart
        flat |= {f"primary{end}": primary[key] for end, key in (("", "value"), ("_low", "low"), ("_high", "high"))}
    flat |= {key: record[key] for key in ("identity", "exposure", "role", "status", "finished") if key in record}
    return flat | ({"error": None} if record.get("status") == "done" else {})


def predictions_of(folder: Path, record: Mapping[str, Any], kind: str, rows: int) -> Any:
    """Return a `wandb.Table` of predictions.

    Args:
        folder: The cell's directory.
        record: Its record.
        kind: `scores` leaves out identifiers, texts, groups and attributes; `text` has identifiers and texts too.
        rows: Largest number of rows, spread evenly over the test set.

    Raises:
        RecordError: The predictions cannot be read.
    """
    import numpy as np
    import wandb

    frame = read_predictions(folder)
    if record["cell"]["task"] == "vqa":
        from vlmbench.metrics.frame import vqa_values

        frame = frame.assign(accuracy=vqa_values(frame)["accuracy"])
    admitted = [
        name for name in map(str, frame) if name.startswith(("target", "score_")) or name in ("answer_type", "accuracy")
    ]
    if kind == "text":
        admitted = [name for name in _IDENTIFYING if name in frame] + admitted
    chosen = np.unique(np.linspace(0, len(frame) - 1, min(rows, len(frame))).astype(int))
    part = frame.iloc[chosen][admitted]
    data = [[int(number), *row] for number, row in zip(chosen, part.to_numpy(dtype=object).tolist(), strict=True)]
    return wandb.Table(columns=["row", *admitted], data=data)


def adapter_of(folder: Path, record: Mapping[str, Any]) -> Any:
    """Return what a cell trained as a `wandb.Artifact` of type `adapter`; None where it saved nothing.

    The same files give the same digest, and W&B keeps one version of them.
    """
    import wandb

    saved = folder / SAVED
    if not saved.is_dir() or not any(saved.iterdir()):
        return None
    cell = record["cell"]
    metadata = {"identity": record["identity"], **cell, "primary_metric": record.get("primary_metric")}
    artifact = wandb.Artifact(f"adapter-{run_id(record['identity'])}", type="adapter", metadata=metadata)
    artifact.add_dir(str(saved))
    return artifact
