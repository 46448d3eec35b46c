"""A cell's identity: a hash of what determines its result, and of nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from vlmbench.config.schema.method import VqaTaskConfig
from vlmbench.config.schema.prompts import PromptsConfig
from vlmbench.config.schema.published import rule_in_force

# Raised when the same configuration would give another result than before.
RESULT_VERSION = 2

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
    "trainer.micro_tokens",
    "trainer.gradient_checkpointing",
    "trainer.compile",
    "trainer.attention",
    "trainer.vision_cache_gib",
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
    "task.evaluate_on": "test",
    "task.prompts": dataclasses.asdict(PromptsConfig()),
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
    """Return the part of a configuration that determines the result; the values are the configuration's own."""
    return {group: _relevant(group, value) for group, value in config.items() if group not in NOT_IDENTITY}


def _relevant(group: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    kept = {leaf: item for leaf, item in value.items() if f"{group}.{leaf}" not in NOT_IDENTITY}
    for path, idle in IDLE.items():
        leaf = path.rpartition(".")[2]
        if path == f"{group}.{leaf}" and leaf in kept and kept[leaf] == idle:
            del kept[leaf]
    if group == "domain" and "rules" in kept:
        name = rule_in_force(kept["target"], kept["split"], kept["rules"])
        if name == rule_in_force("auto", kept["split"], kept["rules"]):
            kept["target"] = "auto"  # whether the usual rule is named or not
        kept["rules"] = {name: kept["rules"].get(name)}
    return kept


class Identities:
    """Identities of many cells, as `identity` gives them; sections that cells share are looked at once.

    A section is known by being the same object. It must not change while this is used.
    """

    def __init__(self) -> None:
        self._texts: dict[tuple[str, int], tuple[Any, str]] = {}

    def of(self, config: Any, *, data: str, weights: str) -> str:
        """Return the 64 hex digits that name a cell.

        Args:
            config: The complete configuration, a dataclass.
            data: The domain's fingerprint.
            weights: The weights' digest.
        """
        names = sorted(item.name for item in dataclasses.fields(config) if item.name not in NOT_IDENTITY)
        sections = ",".join(f"{canonical(name)}:{self._text(name, getattr(config, name))}" for name in names)
        # The canonical JSON of what `identity` digests: its keys in their order.
        rest = f'"data":{canonical(data)},"version":{canonical(RESULT_VERSION)},"weights":{canonical(weights)}'
        return hashlib.sha256(f'{{"config":{{{sections}}},{rest}}}'.encode()).hexdigest()

    def _text(self, name: str, section: Any) -> str:
        key = name, id(section)
        if key not in self._texts:
            value = dataclasses.asdict(section) if dataclasses.is_dataclass(section) else section  # type: ignore[arg-type]
            # Beside its text, so that no other section comes to lie where it lay.
            self._texts[key] = section, canonical(_relevant(name, value))
        return self._texts[key][1]


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def canonical(value: Any) -> str:
    """Return a value's canonical JSON: keys sorted, no space, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
