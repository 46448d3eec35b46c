"""From a model's configuration to the places that its files come from."""

from __future__ import annotations

from collections.abc import Iterable

from vlmbench.config import schema
from vlmbench.weights.locate import MAIN
from vlmbench.weights.source import Source


def sources_of(model: schema.ModelConfig) -> dict[str, Source]:
    """Return a model's source under `MAIN` and its companions' under their names; nothing for a hosted model."""
    if model.kind == "hosted":
        return {}
    companions = {name: source_of(files, model.how_to_get) for name, files in sorted(model.companions.items())}
    return {MAIN: source_of(model, model.how_to_get), **companions}


def distinct(models: Iterable[schema.ModelConfig]) -> list[tuple[str, Source]]:
    """Return every source of some models once, with the names of what needs it."""
    needed: dict[Source, list[str]] = {}
    for model in models:
        for name, source in sources_of(model).items():
            label = f"{model.name}: {name}" if name != MAIN else model.name
            labels = needed.setdefault(source, [])
            if label not in labels:
                labels.append(label)
    return [(", ".join(labels), source) for source, labels in needed.items()]


def source_of(files: schema.FilesConfig, how_to_get: str = "") -> Source:
    """Return one place as plain arguments."""
    return Source(
        files.source,
        revision=files.revision,
        repo_type=files.repo_type,
        files=tuple(files.files),
        sha256=files.sha256,
        download_gib=files.download_gib,
        gated=files.gated,
        how_to_get=how_to_get if files.gated else "",
    )
