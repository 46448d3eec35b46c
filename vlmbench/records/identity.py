"""A cell's identity: a hash of what determines its result, and of nothing else."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from vlmbench.config.schema.method import VqaTaskConfig
from vlmbench.config.schema.published import rule_in_force

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
    "trainer.strategy",
    "trainer.devices",
    "trainer.nodes",
    "trainer.checkpoint_minutes",
    "trainer.pixel_cache_gib",
    "trainer.feature_cache_gib",
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
    # What a dataset's YAML says of it; its fingerprint stands for what is read.
    "domain.title",
    "domain.tasks",
    "domain.kinds",
    "domain.published",
    "domain.group",
    "domain.citation",
    "domain.homepage",
    "domain.access",
    "domain.how_to_get",
    "domain.layout",
    "domain.downloads",
    "domain.notes",
)


# Settings that do nothing at this value. Left out then, so that cells from before they existed keep their names.
IDLE = {
    "task.prompt_choice": VqaTaskConfig.prompt_choice,
    "domain.fraction": 1.0,
    "domain.fraction_seed": 0,
    "domain.shots": 0,
    "domain.corruption": "none",
    "domain.severity": 3,
    "domain.corruption_seed": 0,
}


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
        _drop(kept, path)
    for path, value in IDLE.items():
        group, _, leaf = path.partition(".")
        if kept.get(group, {}).get(leaf) == value:
            _drop(kept, path)
    domain = kept.get("domain", {})
    if "rules" in domain:
        name = rule_in_force(domain["target"], domain["split"], domain["rules"])
        if name == rule_in_force("auto", domain["split"], domain["rules"]):
            domain["target"] = "auto"  # whether the usual rule is named or not
        domain["rules"] = {name: domain["rules"].get(name)}
    return kept


def _drop(config: dict[str, Any], path: str) -> None:
    *parents, leaf = path.split(".")
    node = config
    for parent in parents:
        node = node.get(parent, {})
    node.pop(leaf, None)


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
