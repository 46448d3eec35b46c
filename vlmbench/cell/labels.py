"""Whether what was trained on the labels of one domain has a meaning on another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmbench.config import schema
from vlmbench.config.faults import ConfigError
from vlmbench.domains.base import Domain

# What of these methods is made for the labels it was trained on.
_OF_LABELS = {"lp_text": "text-informed probe", "coop": "context for each class"}


def check_labels(source: dict[str, Any], finetune: schema.FinetuneConfig, domain: Domain, cell: Path) -> None:
    """Check that what was trained has a meaning on another domain.

    Raises:
        ConfigError: It belongs to labels that the domain does not have, or decides them in another way.
    """
    trained, several = source["data"]["labels"], source["data"]["multi_label"]
    what = "linear head" if (cell / "saved" / "head.safetensors").exists() else _OF_LABELS.get(finetune.name, "")
    if isinstance(finetune, schema.CoopConfig) and not finetune.class_specific:
        what = ""
        if several != domain.multi_label:
            raise ConfigError(
                f"the cell's context was trained with {'several labels' if several else 'one label'} an image, and "
                f"{domain.name} has {'several' if domain.multi_label else 'one'}. Train one for it."
            )
    if what and (trained != list(domain.label_names) or several != domain.multi_label):
        raise ConfigError(
            f"the cell's {what} has the labels {trained}, {domain.name} has {list(domain.label_names)}. "
            "It goes only to a domain with the same labels in the same order (domain.labels, domain.label_map); "
            "a cell with text prompts as classifier goes to any."
        )
