"""Score the open answers of finished VQA cells by BERTScore, with a text encoder that is on this machine.

python -m vlmbench.bertscore records=runs encoder=FOLDER
python -m vlmbench.bertscore records=runs encoder=emilyalsentzer/Bio_ClinicalBERT num_layers=12 download=true

Writes bertscore.parquet and bertscore.json beside each record, which the report shows. A cell whose scores are there is
left alone: a run that was killed goes on where it stopped.
"""

from __future__ import annotations

from pathlib import Path

from vlmbench.config import schema
from vlmbench.config.checks import check_fields
from vlmbench.config.entry import compose, run
from vlmbench.config.faults import ConfigError


def main() -> int:
    """Run the command; returns the exit status."""
    composed = compose("bertscore", __doc__ or "")
    for config in composed.configs:
        check(config)
    for config in composed.configs:
        print(score(config))
    return 0


def check(config: schema.BertscoreConfig) -> None:
    """Check a configuration before anything heavy is imported.

    Raises:
        ConfigError: The model is neither a folder with what it must hold nor, without `download`, in the hub's cache.
    """
    check_fields(config)
    folder = Path(config.encoder).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists() or not any(folder.glob("*.safetensors")):
            raise ConfigError(
                f"encoder={config.encoder} lacks config.json or safetensors. Name a folder that holds both."
            )
    elif not config.download:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            here = isinstance(try_to_load_from_cache(config.encoder, "config.json"), str)
        except HFValidationError:
            here = False
        if not here:
            raise ConfigError(
                f"encoder={config.encoder} is no folder, and no model in the hub's cache on this machine. Name a "
                "folder, or say download=true to have it fetched."
            )


def score(config: schema.BertscoreConfig) -> str:
    """Score by one configuration and return what came of it.

    Raises:
        UserError: Records or the model are not as they must be; cells scored before that stay scored.
    """
    from vlmbench.records.bertscores import bertscore_identity
    from vlmbench.records.store import read_predictions
    from vlmbench.reporting.load import load_rows
    from vlmbench.reporting.ordering import newest

    records = Path(config.records)
    found = [row for row in newest(load_rows(records)[0])[0] if row.done and row.task == "vqa"]
    folders = [(records / row.path).parent for row in found]
    if not folders:
        raise ConfigError(f"records={config.records} holds no finished VQA cell. Train one first.")

    import pandas as pd

    from vlmbench.backbones.bertscore import Scorer
    from vlmbench.metrics.published_words import published_form
    from vlmbench.progress import Countdown
    from vlmbench.records.bertscores import write_bertscores

    source = str(Path(config.encoder).expanduser()) if Path(config.encoder).expanduser().is_dir() else config.encoder
    scorer = Scorer(source, num_layers=config.num_layers, batch_size=config.batch_size, download=config.download)
    identity = {"model": Path(source).name, "weights": scorer.digest, "num_layers": scorer.num_layers}
    present = {folder: bertscore_identity(folder) for folder in folders}
    other = [folder for folder, had in present.items() if had not in (None, identity)]
    if other and not config.overwrite:
        raise ConfigError(
            f"{len(other)} cells, {other[0]} for example, hold scores of another model or layer. Say overwrite=true to "
            "replace them."
        )
    todo = [folder for folder in folders if present[folder] != identity]
    progress = Countdown("Scoring cells", len(todo))
    for done, folder in enumerate(todo):
        frame = read_predictions(folder)
        frame = frame[frame["answer_type"] == "open"]
        # Of the texts as the study normalises them before it scores them so.
        texts = ([published_form(text) for text in frame[name]] for name in ("prediction", "answer"))
        scores = scorer.score(*texts)
        columns = dict(zip(("precision", "recall", "f1"), scores.numpy().astype(float).T, strict=True))
        write_bertscores(folder, pd.DataFrame({"example_id": frame["example_id"].to_numpy(), **columns}), identity)
        progress.update(done + 1)
    progress.close()
    return f"scored: {len(todo):,} cells; {len(folders) - len(todo):,} were before"


if __name__ == "__main__":
    run(main)
