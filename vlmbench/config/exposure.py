"""Exposure of a model to a domain, derived from what both declare."""

from __future__ import annotations

from collections.abc import Sequence


def exposure(role: str, pretraining_modalities: Sequence[str], modality: str, declared: str = "auto") -> str:
    """Tell whether a model's pre-training covered a domain's imaging modality.

    Generalists are `ood` on every medical modality, as in the study. A specialist whose pre-training modalities are
    not declared is `unknown`, and so is every specialist on a domain whose modality nobody has named: silence is not
    evidence of absence.

    Args:
        role: `generalist` or `specialist`.
        pretraining_modalities: As the model declares them.
        modality: The domain's; `unknown` where its configuration does not say.
        declared: The domain's own declaration; `auto` for none.

    Returns:
        `id`, `ood` or `unknown`.
    """
    if role == "generalist":
        return "ood"
    if declared != "auto":
        return declared
    if not pretraining_modalities or modality == "unknown":
        return "unknown"
    return "id" if modality in pretraining_modalities else "ood"
