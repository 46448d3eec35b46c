"""Studies with predictions, made without running anything: the metrics of the records are those of the tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from synthetic_records import make_record, write_record

from vlmbench.metrics.frame import score_frame
from vlmbench.records.store import write_predictions

FINDINGS = ("edema", "fracture", "mass", "nodule", "pneumonia", "effusion", "stroke", "cyst")


def diagnosis_frame(
    n: int, auroc: float, *, noise: int, data: int = 0, per_patient: int = 2, patient_share: float = 0.3
) -> pd.DataFrame:
    """A binary diagnosis test set; `data` seeds what all cells of a domain share, `noise` what is a cell's own.

    Scores are normal in each class (binormal), so that the expected AUROC is the one asked for; part of their noise is
    the patient's own.
    """
    shared, own = np.random.default_rng(data), np.random.default_rng([noise, data])
    target = (shared.random(n) < 0.4).astype(int)
    patient = np.arange(n) // per_patient
    hard = shared.normal(size=patient[-1] + 1)[patient]
    mixed = np.sqrt(patient_share) * hard + np.sqrt(1 - patient_share) * own.normal(size=n)
    score = 1 / (1 + np.exp(-(stats.norm.ppf(auroc) * np.sqrt(2) * (target - 0.5) + mixed)))
    return pd.DataFrame(
        {
            "example_id": [f"e{i:05d}" for i in range(n)],
            "group": [f"p{i:05d}" for i in patient],
            "image": [f"i{i:05d}.png" for i in range(n)],
            "target": target,
            "score_0": 1 - score,
            "score_1": score,
            "attribute_sex": np.where(shared.random(patient[-1] + 1) < 0.5, "female", "male")[patient],
            "attribute_age": shared.integers(20, 90, patient[-1] + 1)[patient],
        }
    )


def vqa_frame(n: int, accuracy: float, *, noise: int, data: int = 0, per_patient: int = 2) -> pd.DataFrame:
    """A test set of questions, two of three of them closed; a wrong open answer is another finding."""
    shared, own = np.random.default_rng(data), np.random.default_rng([noise, data])
    closed = shared.random(n) < 2 / 3
    findings = shared.choice(FINDINGS, n)
    yes = shared.random(n) < 0.5
    right = own.random(n) < accuracy
    others = [str(own.choice([name for name in FINDINGS if name != finding])) for finding in findings]
    answer = np.where(closed, np.where(yes, "yes", "no"), findings)
    wrong = np.where(closed, np.where(yes, "no", "yes"), others)
    return pd.DataFrame(
        {
            "example_id": [f"e{i:05d}" for i in range(n)],
            "group": [f"p{i // per_patient:05d}" for i in range(n)],
            "image": [f"i{i // per_patient:05d}.png" for i in range(n)],
            "question": [
                f"Is there {name}?" if shut else "What is seen?" for name, shut in zip(findings, closed, strict=True)
            ],
            "answer": answer,
            "answer_type": np.where(closed, "closed", "open"),
            "options": [["yes", "no"] if shut else [] for shut in closed],
            "prediction": np.where(right, answer, wrong),
        }
    )


def write_cell(
    root: Path, frame: pd.DataFrame, model: str, domain: str, *, resamples: int = 100, **record: Any
) -> Path:
    """Write a cell whose metrics are those of its predictions; further arguments are those of `make_record`."""
    made = make_record(model, domain, **record)
    made |= score_frame(frame, made["cell"]["task"], n_resamples=resamples)
    made["n"] = {"examples": len(frame), "groups": int(frame["group"].nunique())}
    path = write_record(root, made)
    write_predictions(path.parent, frame)
    return path


def write_study(
    root: Path,
    aurocs: Mapping[tuple[str, str, str], float],
    *,
    seeds: Iterable[int] = (0,),
    n: int = 200,
    seed_noise: float = 0.0,
    **record: Any,
) -> None:
    """Write diagnosis cells of given expected AUROC.

    Args:
        root: Where to.
        aurocs: (model, domain, finetune) to the AUROC.
        seeds: Of the training.
        n: Test examples of each domain.
        seed_noise: Standard deviation of the expected AUROC over seeds.
        record: Further arguments of `make_record`.
    """
    domains = sorted({domain for _, domain, _ in aurocs})
    for number, ((model, domain, finetune), auroc) in enumerate(sorted(aurocs.items())):
        for seed in seeds if finetune != "zero_shot" else (0,):
            moved = auroc + seed_noise * np.random.default_rng([number, seed]).normal()
            frame = diagnosis_frame(
                n, float(np.clip(moved, 0.02, 0.98)), noise=1000 * number + seed, data=domains.index(domain)
            )
            scope = "vision" if finetune == "lora" else ""
            write_cell(root, frame, model, domain, finetune=finetune, scope=scope, seed=seed, **record)
