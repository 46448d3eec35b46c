"""What the command that computes BERTScores takes."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from vlmbench.config.schema.fields import number


@dataclass
class BertscoreConfig:
    """Open answers of finished VQA cells, scored by a text encoder.

    Attributes:
        records: Directory searched for records, at any depth.
        encoder: Folder of a BERT-like model in the hub's format with safetensors, or its name on the hub, for example
            `emilyalsentzer/Bio_ClinicalBERT` with `num_layers=12`, as the study has it.
        num_layers: The layer whose output is compared, counted from 1; 0 takes the last.
        batch_size: Pairs of texts at a time.
        download: Fetch an encoder that is not on this machine from the hub.
        overwrite: Replace scores of another encoder or layer.
    """

    records: str = "runs"
    encoder: str = MISSING
    num_layers: int = number(0, 0, 200)
    batch_size: int = number(64, 1, 10_000)
    download: bool = False
    overwrite: bool = False
