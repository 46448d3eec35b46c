"""Checks of a domain's configuration, before any file of it is read."""

from __future__ import annotations

import math
import re

from vlmbench.config import schema
from vlmbench.config.exposure import hint_at, parts
from vlmbench.config.faults import ConfigError, ImpossibleCellError, unknown
from vlmbench.config.presence import domain_present
from vlmbench.config.schema.domain import IN_PLACE


def check_domain(domain: schema.DomainConfig, task: str) -> None:
    """Check a domain, and that its folder and table are here.

    Raises:
        ConfigError: As `check_domain_form`.
        AbsentError: As `vlmbench.config.presence.domain_present`.
    """
    check_domain_form(domain, task)
    domain_present(domain)


def check_domain_form(domain: schema.DomainConfig, task: str) -> None:
    """Check a domain's name, templates and fractions, without a look at any folder.

    Raises:
        ConfigError: A name that no folder can have, a template without its placeholder, bad fractions, no modality or
            too many.
    """
    if not re.fullmatch(r"\w[^/\\]*", domain.name):
        raise ConfigError(
            f"domain.name={domain.name!r} is part of folder names: begin with a letter or digit, without / or \\."
        )
    for word in parts(domain.modality):
        hint_at("domain.modality", word)
    for key in ("templates", "negative_templates"):
        for template in getattr(domain, key):
            if "{label}" not in template:
                raise ConfigError(f"domain.{key}: {template!r} lacks the placeholder {{label}}.")
    check_subset(domain, task)
    if isinstance(domain, schema.TableDomainConfig):
        _check_fractions(domain.split_fractions)
    if isinstance(domain, schema.PublishedDomainConfig):
        _check_published(domain)
    if isinstance(domain, schema.PhantomDomainConfig) and not domain.modalities:
        raise ConfigError("domain.modalities=[] is empty: name one phantom modality, or several for a mixture.")
    if isinstance(domain, schema.PhantomDomainConfig) and len(domain.modalities) != 1 and task == "diagnosis":
        raise ConfigError(
            f"domain.modalities={list(domain.modalities)}: a diagnosis takes one modality; "
            "mixtures are for pretrain and vqa."
        )


def check_subset(domain: schema.DomainConfig, task: str) -> None:
    """Check the choice of training examples.

    Raises:
        ConfigError: No examples, two ways of choosing them, or so many of each label where there are no labels.
    """
    if domain.fraction <= 0:
        raise ConfigError(
            f"domain.fraction={domain.fraction:g} leaves nothing to train on: it must be above 0, up to 1. "
            "finetune=zero_shot trains on nothing."
        )
    if domain.shots and domain.fraction < 1:
        raise ConfigError(
            f"domain.shots={domain.shots} and domain.fraction={domain.fraction:g} both choose training examples. "
            "Set one of them."
        )
    if domain.shots and task not in ("diagnosis", ""):
        raise ConfigError(
            f"domain.shots={domain.shots} counts examples of each label, and task={task} has no labels. "
            "Set domain.fraction=... instead, a share of the train split."
        )


def check_evaluation(domain: schema.DomainConfig) -> None:
    """Check a domain that a finished cell is taken to.

    Raises:
        ConfigError: It asks for a subset of what is not trained on.
    """
    if domain.shots or domain.fraction < 1:
        raise ConfigError(
            "domain.fraction and domain.shots choose among the training examples, and an evaluation trains on none. "
            "Leave them out, or give them to python -m vlmbench.train."
        )


def check_corruption(domain: schema.DomainConfig, finetune: schema.FinetuneConfig, task: str) -> None:
    """Check that nothing is trained on images that are made worse; what replaces them may be trained on.

    Raises:
        ImpossibleCellError: The method trains.
    """
    if domain.corruption in IN_PLACE:
        if (domain.corruption, task) == ("blank", "diagnosis") and finetune.name != "zero_shot":
            raise ImpossibleCellError(
                f"domain.corruption=blank leaves finetune={finetune.name} nothing to learn a diagnosis from but the "
                "shares of the labels, which the report's majority row shows. Train clean, then python -m "
                "vlmbench.evaluate cell=... domain=... domain.corruption=blank."
            )
        return
    if domain.corruption != "none" and finetune.name != "zero_shot":
        raise ImpossibleCellError(
            f"domain.corruption={domain.corruption} is for evaluation, and finetune={finetune.name} trains: train "
            f"clean, then python -m vlmbench.evaluate cell=... domain=... domain.corruption={domain.corruption}."
        )


def _check_published(domain: schema.PublishedDomainConfig) -> None:
    if domain.target != "auto" and domain.target not in domain.rules:
        raise ConfigError(unknown("domain.target", domain.target, ["auto", *domain.rules]))
    for key in ("templates", "negative_templates"):
        for template in getattr(domain.rule(), key):
            if "{label}" not in template:
                raise ConfigError(f"domain.rules.{domain.rule_name()}.{key}: {template!r} lacks {{label}}.")
    _check_fractions(domain.split_fractions)


def _check_fractions(fractions: list[float]) -> None:
    sums_to_1 = math.isclose(sum(fractions), 1, abs_tol=1e-6)
    if len(fractions) != 3 or min(fractions) < 0 or fractions[0] == 0 or not sums_to_1:
        raise ConfigError(
            f"domain.split_fractions={fractions} must be three shares (train, val, test) that add to 1, train's above "
            "0."
        )
