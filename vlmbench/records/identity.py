"""A cell's identity: a hash of what determines its result, and of nothing else."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Raised when the same configuration would give another result than before.
RESULT_VERSION = 1

# Where things are, how fast they go, what is shown, and what is computed from the predictions afterwards.
NOT_IDENTITY = (
    "output",
    "lock",
    "logger",
    "sweep",
    "deterministic",
    "trainer.num_workers",
    "trainer.accelerator",
    "trainer.pixel_cache_gib",
    "model.source",
    "model.revision",
    "model.repo_type",
    "model.files",
    "model.sha256",
    "model.companions",
    "model.role",
    "model.pair",
    "model.family",
    "model.pretraining_modalities",
    "model.pretraining_source",
    "model.licence",
    "model.gated",
    "model.download_gib",
    "model.architecture",
    "model.parameters",
    "model.image_size",
    "model.how_to_get",
    "model.float16",
    "model.base_url",
    "model.api_key_env",
    "model.concurrency",
    "model.retries",
    "model.timeout",
    "model.cache",
    "model.learning_rates",
    "model.default_scope",
    "task.resamples",
    "task.confidence",
    "task.primary_metric",
    "domain.root",
    "domain.licence",
    "domain.exposure",
    "domain.audit_hashes",
    "domain.check_images",
)


def identity(config: Mapping[str, Any], *, data: str, weights: str) -> str:
    """Return the 64 hex digits that name a cell.

    Args:
        config: The complete configuration as nested plain values.
        data: The domain's fingerprint.
        weights: The weights' digest; both stand in for the paths that are left out.
    """
    return digest({"version": RESULT_VERSION, "config": relevant(config), "data": data, "weights": weights})


def relevant(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that determines the result."""
    kept = copy.deepcopy(dict(config))
    for path in NOT_IDENTITY:
        *parents, leaf = path.split(".")
        node = kept
        for parent in parents:
            node = node.get(parent, {})
        node.pop(leaf, None)
    return kept


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
