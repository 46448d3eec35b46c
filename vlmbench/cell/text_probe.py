"""Adapting a model by the linear probe that text informs, chosen on validation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from vlmbench.cell.selecting import Selection
from vlmbench.config import schema
from vlmbench.domains.base import Domain, Split
from vlmbench.modules.scoring import targets_of, validation_metrics
from vlmbench.tuning.lp_text import Blend, BlendedClassifier, choose, iterates


def fit_lp_text(
    finetune: schema.LpTextConfig,
    domain: Domain,
    embeddings: Mapping[Split, Tensor],
    classifier: BlendedClassifier,
    monitor: str,
) -> Selection:
    """Solve the text-informed linear probe and put the iterate that is best on validation into `classifier`.

    Args:
        finetune: Form and number of iterations.
        domain: Gives the targets; of one label each.
        embeddings: Frozen image embeddings of `train` (N, D) and `val` (M, D).
        classifier: Has the classes' text embeddings; its prototypes and multipliers are replaced.
        monitor: `val/auroc`, `val/accuracy` or `val/loss`.
    """
    y, y_val = (
        targets_of([example.labels for example in domain.split(split)], len(domain.label_names), multi_label=False)
        for split in ("train", "val")
    )
    text = classifier.text.double().cpu()
    unit = functional.normalize(embeddings["val"].double(), dim=-1)

    def validate(blend: Blend) -> float:
        logits = blend.logits(unit, text)
        if monitor == "val/loss":
            return -float(functional.cross_entropy(logits, torch.from_numpy(y_val)))
        return validation_metrics(logits.softmax(-1).numpy(), y_val, False)[monitor.removeprefix("val/")]

    found = iterates(
        *(embeddings["train"], torch.from_numpy(y), text), iterations=finetune.iterations, form=finetune.form
    )
    best, score = choose(found, validate)
    with torch.no_grad():
        classifier.weight.copy_(best.weight)
        classifier.multipliers.copy_(best.multipliers)
    chosen = {"iteration": best.iteration, "objective": best.objective, "gradient": best.gradient}
    return Selection(monitor, abs(score), chosen)
