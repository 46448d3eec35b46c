"""Exposure of a model to a domain, derived from what both declare."""

from __future__ import annotations

from collections.abc import Sequence

UNDISCLOSED = "undisclosed"


def exposure(role: str, pretraining_modalities: Sequence[str], modality: str, declared: str = "auto") -> str:
    """Tell whether a model's pre-training covered a domain's imaging modality.

    Generalists are `ood` on every medical modality, as in the study, unless their owner does not say what they saw
    (`undisclosed`): then they are `unknown`. So is a specialist whose pre-training modalities are not declared, and
    every specialist on a domain whose modality nobody has named: silence is not evidence of absence.

    Args:
        role: `generalist` or `specialist`.
        pretraining_modalities: As the model declares them.
        modality: The domain's; `unknown` where its configuration does not say.
        declared: The domain's own declaration; `auto` for none.

    Returns:
        `id`, `ood` or `unknown`.
    """
    hidden = UNDISCLOSED in pretraining_modalities
    if role == "generalist" and not hidden:
        return "ood"
    if declared != "auto":
        return declared
    if hidden or not pretraining_modalities or modality == "unknown":
        return "unknown"
    return "id" if modality in pretraining_modalities else "ood"
