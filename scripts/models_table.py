"""Write the README's table of models, from their YAML files and what proves each: python scripts/models_table.py."""

from __future__ import annotations

import json
from collections.abc import Mapping

from omegaconf import MISSING
from readme import README, ROOT, with_table
from releases import makers

from vlmbench.catalogue.read import read_models
from vlmbench.config.schema import ModelConfig

BEGIN, END = "<!-- models: made by scripts/models_table.py -->", "<!-- /models -->"
GOLDEN = ROOT / "tests" / "golden"
SAME = {"vila_m3": "vila15"}  # one program, one small release


def proofs(name: str, model: ModelConfig) -> str:
    """Return the numbers, as the README explains them, of what proves a model's loading code."""
    if model.kind == "hosted":
        return "5"
    fixture = GOLDEN / f"{SAME.get(name, name)}.json"
    prompts = json.loads((GOLDEN / "generative.json").read_text(encoding="utf-8"))
    holds = {
        "1": name in makers(),
        "2": bool(model.parameters),
        "3": fixture.is_file(),
        "4": name in prompts or fixture.is_file() or (model.kind == "contrastive" and name in makers()),
    }
    return " ".join(number for number, held in holds.items() if held)


def table(models: Mapping[str, ModelConfig]) -> str:
    """Return the table as Markdown: one row a model that is not shipped with the package."""
    lines = ["| model | what it is | role | pair | loader | proved by |", "|---|---|---|---|---|---|"]
    for kind in ("contrastive", "generative", "hosted"):
        for name, model in models.items():
            if model.kind != kind or model.source.startswith("package:"):
                continue
            pair = f"`{model.pair}`" if model.pair else ""
            what = f"`{model.source}`" if model.source not in ("", MISSING) else "whatever your endpoint serves"
            gate = " (gated)" if model.gated else " (by hand: `models show`)" if model.how_to_get else ""
            lines.append(
                f"| `{name}` | {what}{gate} | {model.role} | {pair} | `{model.loader}` | {proofs(name, model)} |"
            )
    return "\n".join(lines)


def updated(text: str) -> str:
    """Return the README with the table as it is now.

    Raises:
        ValueError: The marks that enclose the table are gone.
    """
    return with_table(text, BEGIN, END, table(read_models()))


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
