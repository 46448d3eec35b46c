"""Images of the user's own, put to a finished cell as its test images were."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vlmbench.config import schema
from vlmbench.config.checks import check_endpoint
from vlmbench.config.faults import ConfigError
from vlmbench.config.presence import model_present, package_present
from vlmbench.config.restore import cell_from_dict
from vlmbench.domains.base import Domain, DomainError, Example, ImageError, Prompts, TaskName
from vlmbench.domains.images import read_image
from vlmbench.domains.prompts import build_prompts
from vlmbench.domains.questions import lettered
from vlmbench.hosted.endpoint import brief
from vlmbench.records.store import RecordError, read_record

SAVED = "saved"  # as `cell.work` names it, which takes torch


@dataclass(frozen=True)
class Given:
    """Decoded images by the name under which they were given."""

    images: Mapping[str, Image.Image]

    def load(self, key: str) -> Image.Image:
        """Return an image."""
        return self.images[key]


@dataclass(frozen=True)
class PreparedImages:
    """Images and a cell that go together, before anything heavy is imported.

    Attributes:
        config: The cell, with the machine's part of the trainer replaced.
        domain: The images as a test split.
        saved: Folder of what the cell saved.
        label: The cell's name for people.
        prompts: What its record says of the prompts that it chose from; None where it had no choice.
    """

    config: schema.CellConfig
    domain: Domain
    saved: Path
    label: str
    prompts: Mapping[str, Any] | None


def prepare_images(asked: schema.PredictConfig, paths: Sequence[str]) -> PreparedImages:
    """Read the cell's record and the images.

    Args:
        asked: What is asked.
        paths: The images' files.

    Raises:
        RecordError: There is no finished cell, or what it saved is not there any more.
        ConfigError: What is asked does not go with the cell.
        DomainError: An image cannot be read.
    """
    run = Path(asked.run)
    record = read_record(run)
    if record["status"] != "done":
        reason = brief((record.get("error") or {}).get("message") or "no reason is recorded")
        raise ConfigError(f"run={asked.run!r} failed and predicts nothing. Run it again. It failed by: {reason}")
    if record["kind"] == "trial":
        raise ConfigError(f"run={asked.run!r} is a trial of a search, of which nothing is kept. Give a finished cell.")
    cell = cell_from_dict(record["config"])
    _check_question(asked, cell.task.name)
    check_endpoint(cell.model)
    model_present(cell.model)
    package_present(cell.finetune)
    saved = (run if record["kind"] == "cell" else run.parent.parent) / SAVED
    found = sum(path.stat().st_size for path in saved.rglob("*") if path.is_file())
    if found != record["cost"]["saved_bytes"]:
        raise RecordError(
            f"{saved} holds {found:,} bytes, and the cell saved {record['cost']['saved_bytes']:,}: what it was tuned "
            "to is not whole. Copy the folder again from where it was trained, or train the cell again."
        )
    # Of the trainer: nothing is kept of images that come once.
    trainer = dataclasses.replace(
        cell.trainer,
        accelerator=asked.accelerator,
        strategy="auto",
        devices=1,
        nodes=1,
        num_workers=0,
        pixel_cache_gib=0.0,
        feature_cache_gib=0.0,
        vision_cache_gib=0.0,
    )
    config = dataclasses.replace(cell, trainer=trainer, lock=asked.lock)
    domain = own_domain(config, record["data"], asked, paths)
    return PreparedImages(config, domain, saved, run.name, record.get("prompts"))


def own_domain(
    config: schema.CellConfig, data: Mapping[str, Any], asked: schema.PredictConfig, paths: Sequence[str]
) -> Domain:
    """Return the images as the test split of a domain like the cell's own, whose files need not be here.

    Labels are those in the record; the prompts of a classifier made of text follow from them and from the domain's
    configuration, as they did for the cell.

    Args:
        config: The cell.
        data: What its record says of the data.
        asked: The question and its options.
        paths: The images' files.

    Raises:
        DomainError: An image cannot be read.
    """
    images = {}
    for path in paths:
        try:
            images[path] = read_image(path)
        except ImageError as error:
            raise DomainError(f"image={error.key}: {error.reason}. Give a PNG, JPEG, TIFF or DICOM file.") from error
    options = lettered(asked.options, "options") if asked.multiple_choice else tuple(asked.options)
    about: dict[str, Any] = {"labels": (0,)}  # of which nothing is made: nobody knows the right one
    if config.task.name == "vqa":
        answer_type = "closed" if options else "open"
        about = {"question": asked.question, "answer_type": answer_type, "options": options}
        about |= {"answer": options[0] if options else "", "listed": asked.multiple_choice}
    task: TaskName = config.task.name  # type: ignore[assignment]
    labels, several = tuple(data["labels"]), bool(data["multi_label"])
    modality = config.domain.modality
    if isinstance(config.domain, schema.PhantomDomainConfig) and len(config.domain.modalities) == 1:
        modality = config.domain.modalities[0]
    return Domain(
        name=config.domain.shown_name(),
        modality=modality,
        task=task,
        examples=[Example(path, path, path, "test", **about) for path in images],
        images=Given(images),
        label_names=labels,
        multi_label=several,
        prompts=_prompts(config.domain, labels, several) if task == "diagnosis" else Prompts({}),
    )


def predict_images(prepared: PreparedImages) -> list[dict[str, Any]]:
    """Predict.

    Returns:
        For each image its `image` and, of a diagnosis, `scores`: label to probability, the likeliest first, which for
        several labels do not add up to 1. Of a question, `question`, `answer` and, where options were given and the
        model gives likelihoods, `options`: option to `log_likelihood` and its `share` among them, likeliest first.

    Raises:
        UserError: The weights are not here, or this machine cannot compute the cell.
    """
    from vlmbench.cell.cost import Clock
    from vlmbench.cell.tuned import put_together
    from vlmbench.cell.work import predict

    config, domain, clock = prepared.config, prepared.domain, Clock()
    with tempfile.TemporaryDirectory() as folder:
        tuned = put_together(config, domain, prepared.saved, Path(folder), prepared.label, clock, prepared.prompts)
        batches = predict(tuned.module, tuned.data, tuned.trainer, clock)
    rows: dict[int, dict[str, Any]] = {}
    for batch in batches:
        for place, index in enumerate(batch["index"]):
            rows[index] = {key: values[place] for key, values in batch.items() if key != "index"}
    return [
        {"image": example.image} | _said(rows[index], example, domain) for index, example in enumerate(domain.examples)
    ]


def _said(row: Mapping[str, Any], example: Example, domain: Domain) -> dict[str, Any]:
    if domain.task == "diagnosis":
        scores = sorted(zip(domain.label_names, row["scores"], strict=True), key=lambda pair: -pair[1])
        return {"scores": dict(scores)}
    said: dict[str, Any] = {"question": example.question, "answer": row["prediction"]}
    if row["option_scores"]:
        import numpy as np

        values = np.array(row["option_scores"])
        shares = np.exp(values - np.logaddexp.reduce(values))
        order = np.argsort(-values, kind="stable")
        said["options"] = {
            example.options[i]: {"log_likelihood": float(values[i]), "share": float(shares[i])} for i in order
        }
    return said


def _prompts(config: schema.DomainConfig, labels: tuple[str, ...], several: bool) -> Prompts:
    source = config.rule() if isinstance(config, schema.PublishedDomainConfig) else config
    phrases = {label: texts for label, texts in source.label_prompts.items() if label in labels}
    return build_prompts(labels, phrases, source.templates, source.negative_templates, multi_label=several)


def _check_question(asked: schema.PredictConfig, task: str) -> None:
    if task == "vqa" and not asked.question.strip():
        raise ConfigError("question is not set: the cell answers questions. Say question='Is there an effusion?'.")
    if task == "diagnosis" and (asked.question or asked.options):
        raise ConfigError(
            "question and options do not go with this cell: it is a diagnosis among fixed labels. Leave them out, or "
            "give a cell of task=vqa."
        )
    if task not in ("vqa", "diagnosis"):
        raise ConfigError(
            f"the cell is of task={task}, which predicts nothing of an image. Give one of diagnosis or vqa."
        )
    if asked.options and len(set(asked.options)) < max(2, len(asked.options)):
        raise ConfigError(f"options=[{','.join(asked.options)}] leaves nothing to choose. Give two or more, each once.")
    if asked.multiple_choice and len(asked.options) < 2:
        raise ConfigError("multiple_choice=true needs options=[...], two or more.")
