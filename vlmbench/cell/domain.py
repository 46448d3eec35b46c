"""From a domain's configuration to its examples, audited; without torch, so that a cell is named before it loads."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Callable
from typing import Any

from vlmbench.config import schema
from vlmbench.config.schema.domain import IN_PLACE
from vlmbench.domains.audit import audit
from vlmbench.domains.base import Domain, TaskName
from vlmbench.domains.corruption import CorruptedImages, corrupted, uncorrupted
from vlmbench.domains.replaced import replaced
from vlmbench.domains.subset import few_shot

_UNREADABLE = 20


def build_domain(config: schema.DomainConfig, task: TaskName) -> Domain:
    """Build a domain for a task, with the training subset and the corruption that are asked for.

    Raises:
        DomainError: The data are not as configured; the message says what, where and what to do.
    """
    images: CorruptedImages
    domain = dataclasses.replace(_whole(config, task), name=config.shown_name())
    domain = few_shot(domain, fraction=config.fraction, shots=config.shots, seed=config.fraction_seed)
    if config.corruption == "none":
        return domain
    if config.corruption in IN_PLACE:
        images = replaced(domain.images, config.corruption, domain.examples, config.corruption_seed)
    else:
        images = corrupted(domain.images, config.corruption, config.severity, config.corruption_seed)
    fingerprint = hashlib.sha256(f"{domain.fingerprint}|{images.tag}".encode()).hexdigest()
    return dataclasses.replace(domain, images=images, fingerprint=fingerprint, whole=None)


def _whole(config: schema.DomainConfig, task: TaskName) -> Domain:
    if isinstance(config, schema.PhantomDomainConfig):
        from vlmbench.domains.phantom.build import build_phantom
        from vlmbench.domains.phantom.build import label_names as phantom_labels
        from vlmbench.domains.prompts import build_prompts

        prompts = None
        if task == "diagnosis":
            multi_label = config.target == "multilabel"
            labels = phantom_labels(config.modalities[0], config.target)
            phrases = {label: texts for label, texts in config.label_prompts.items() if label in labels}
            prompts = build_prompts(
                labels, phrases, config.templates, config.negative_templates, multi_label=multi_label
            )
        return build_phantom(
            config.name,
            config.modalities if len(config.modalities) > 1 else config.modalities[0],
            task,
            target=config.target,
            n_patients=config.patients,
            seed=config.world_seed,
            image_size=config.image_size,
            questions_per_image=config.questions_per_image,
            prompts=prompts,
        )
    if isinstance(config, schema.FolderDomainConfig):
        from vlmbench.domains.folder import build_folder

        # An empty one is none, as the schema has it.
        given = {name: getattr(config, name) or None for name in ("label_map", "labels", "label_columns")}
        return build_folder(**_arguments(build_folder, config) | given)
    if isinstance(config, schema.VqaJsonlDomainConfig):
        from vlmbench.domains.vqa_jsonl import build_vqa_jsonl

        return build_vqa_jsonl(**_arguments(build_vqa_jsonl, config))
    if isinstance(config, schema.CaptionsJsonlDomainConfig):
        from vlmbench.domains.captions_jsonl import build_captions_jsonl

        return build_captions_jsonl(**_arguments(build_captions_jsonl, config))
    if isinstance(config, schema.PublishedDomainConfig):
        from vlmbench.domains.published.build import build_published

        given = {"task": task, "study": config.study_split, "ours": config.ours_split}
        given["rule"] = dataclasses.asdict(config.rule())
        return build_published(**_arguments(build_published, config) | given)
    raise TypeError(f"no builder for a domain of type {type(config).__name__}")


def _arguments(builder: Callable[..., Domain], config: schema.DomainConfig) -> dict[str, Any]:
    """Return the arguments of a builder that a configuration has under the same names."""
    return {name: getattr(config, name) for name in inspect.signature(builder).parameters if hasattr(config, name)}


def audited(domain: Domain, *, hashes: bool) -> Domain:
    """Return the domain with the overlap of its splits counted, in a form that fits a record.

    Clean images are compared: a corruption would hide copies. Of many unreadable ones the first twenty are named;
    `unreadable_images` counts them.
    """
    found = audit(clean(domain), hashes=hashes)
    if "unreadable" in found:
        unreadable = found["unreadable"]
        found["unreadable"] = dict(list(unreadable.items())[:_UNREADABLE])
        found["unreadable_images"] = len(unreadable)
    return dataclasses.replace(domain, audit=found)


def clean(domain: Domain) -> Domain:
    """Return the domain with its images as they are stored or made."""
    return dataclasses.replace(domain, images=uncorrupted(domain.images))
