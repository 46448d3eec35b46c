"""Exposure of a model to a domain, the words for it, and the table of all of it."""

import json

import pytest
import yaml

from vlmbench.catalogue.exposures import study, table, text
from vlmbench.catalogue.read import named_domain, read_domains, read_models
from vlmbench.config.domain_checks import check_domain
from vlmbench.config.exposure import MODALITIES, UNDISCLOSED, exposure, hint_at, nearest_word, parts
from vlmbench.config.faults import ConfigError
from vlmbench.config.schema import (
    ContrastiveModelConfig,
    DomainConfig,
    FolderDomainConfig,
    ModelConfig,
    PhantomDomainConfig,
    PublishedDomainConfig,
)
from vlmbench.domains.base import Domain, Example
from vlmbench.domains.folder_images import FolderImages
from vlmbench.modules.prompting import diagnosis
from vlmbench.weights.source import ASSETS


@pytest.mark.parametrize(
    ("role", "modalities", "declared", "expected"),
    [
        ("generalist", [], "auto", "ood"),
        ("generalist", ["radiograph"], "id", "ood"),
        ("specialist", ["radiograph", "fundus"], "auto", "id"),
        ("specialist", ["fundus"], "auto", "ood"),
        ("specialist", [], "auto", "unknown"),
        ("specialist", ["fundus"], "id", "id"),
        ("specialist", ["radiograph"], "unknown", "unknown"),
        ("generalist", ["undisclosed"], "auto", "unknown"),
        ("generalist", ["undisclosed"], "id", "id"),
    ],
)
def test_exposure(role, modalities, declared, expected):
    assert exposure(role, modalities, "radiograph", declared) == expected


def test_a_word_is_the_same_in_capitals():
    assert exposure("specialist", ["MRI"], "mri") == exposure("specialist", ["mri"], "MRI") == "id"
    assert exposure("generalist", ["Undisclosed"], "mri") == "unknown"


def test_a_domain_that_does_not_name_its_modality_is_not_called_unseen():
    assert exposure("specialist", ["radiograph"], "unknown") == "unknown"
    assert exposure("specialist", ["radiograph"], "unknown", "ood") == "ood"
    assert exposure("generalist", [], "unknown") == "ood"


MIXED = "radiograph+ct+mri"


@pytest.mark.parametrize(
    ("modalities", "modality", "expected"),
    [
        (["radiograph", "ct", "mri", "fundus"], MIXED, "id"),
        (["fundus"], MIXED, "ood"),
        (["radiograph"], MIXED, "unknown"),
        (["radiograph", "ct"], "ct + radiograph", "id"),
        (["radiograph", "ct"], "radiograph+unknown", "unknown"),
        (["radiograph", "fundus"], "mixture", "unknown"),
        ([], MIXED, "unknown"),
        (["undisclosed"], MIXED, "unknown"),
        (["radiograph", "CT"], "Ct+ Radiograph+", "id"),
        (["radiograph"], "Unknown", "unknown"),
        (["radiograph"], "+", "unknown"),
    ],
)
def test_a_mixed_domain_is_id_or_ood_only_where_all_of_it_is(modalities, modality, expected):
    assert exposure("specialist", modalities, modality) == expected
    assert exposure("generalist", [word for word in modalities if word != "undisclosed"], modality) == "ood"
    assert exposure("specialist", modalities, modality, "id") == "id"


def test_every_model_and_domain_speaks_the_words_of_the_vocabulary():
    for name, model in read_models().items():
        strange = set(model.pretraining_modalities) - {*MODALITIES, UNDISCLOSED}
        assert not strange, f"model {name}"
    for name, domain in read_domains().items():
        strange = set(parts(domain.modality)) - set(MODALITIES)
        allowed = {"phantom": {"mixture", "shapes"}, "published": set()}.get(domain.source, {"unknown"})
        assert strange <= allowed, f"domain {name}"
        assert parts(domain.modality), f"domain {name}"


def test_the_vocabulary_has_no_word_that_nobody_would_look_up():
    assert all(text and len(text) < 100 for text in MODALITIES.values())
    assert all(word == word.lower() and "+" not in word for word in MODALITIES)


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("radiography", "radiograph"),
        ("x-ray", "radiograph"),
        ("X-Ray", "radiograph"),
        ("CT", ""),
        ("Undisclosed", ""),
        ("MR", "mri"),
        ("Histopathology", "histology"),
        ("dermascopy", "dermoscopy"),
        ("radiograph", ""),
        ("unknown", ""),
        ("mixture", ""),
        ("shapes", ""),
        ("thermography", ""),
        ("spectroscopy", ""),
    ],
)
def test_a_near_miss_is_told_and_a_word_of_ones_own_is_not(word, near):
    assert nearest_word(word) == near


def test_a_near_miss_is_a_warning_once_and_no_error(caplog):
    hint_at.cache_clear()
    config = named_domain("folder", None, ["name=mine", "modality=x-ray+ct+thermography"], complete=False)
    config = PhantomDomainConfig(name="mine", modality=config.modality, modalities=["oct"])
    for _ in range(3):
        check_domain(config, "diagnosis")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "domain.modality: 'x-ray'" in record.getMessage()
    assert "write 'radiograph'" in record.getMessage()


# --------------------------------------------------------------------------------------------------------- the table


def model(role, *modalities):
    kind = "contrastive" if role else "hosted"
    return ContrastiveModelConfig(name="m", kind=kind, role=role, pretraining_modalities=list(modalities))


MODELS: dict[str, ModelConfig] = {
    "clip": model("generalist"),
    "biomedclip": model("specialist", "radiograph", "histology", "dermoscopy"),
    "plip": model("specialist", "histology"),
    "mine": model("specialist", "radiograph", "ct"),
}
DOMAINS: dict[str, DomainConfig] = {
    "chexpert": PublishedDomainConfig(name="chexpert", modality="radiograph"),
    "papila": PublishedDomainConfig(name="papila", modality="fundus"),
    "vqa_rad": PublishedDomainConfig(name="vqa_rad", modality="radiograph+ct+mri"),
    "phantom_oct": PhantomDomainConfig(name="phantom_oct", modality="oct"),
    "folder": FolderDomainConfig(name="folder", modality="unknown"),
}


def cell(rows, model, domain):
    (row,) = (row for row in rows if (row["model"], row["domain"]) == (model, domain))
    return row


def test_the_table_has_every_model_beside_every_domain_but_the_users_own():
    rows = table(MODELS, DOMAINS)
    assert len(rows) == 4 * 4
    assert {row["domain"] for row in rows} == set(DOMAINS) - {"folder"}
    assert {row["exposure"] for row in rows if row["model"] == "clip"} == {"ood"}
    assert cell(rows, "mine", "vqa_rad")["exposure"] == "unknown"
    assert cell(rows, "mine", "vqa_rad")["study"] == "-"
    assert not cell(rows, "mine", "vqa_rad")["differs"]
    papila = cell(rows, "biomedclip", "papila")
    assert (papila["ours"], papila["study"], papila["exposure"], papila["differs"]) == ("ood", "id", "ood", True)
    assert not cell(rows, "plip", "chexpert")["differs"]
    assert json.loads(json.dumps(rows)) == rows


def test_the_profile_of_the_study_shows_what_the_study_has():
    rows = table(MODELS, DOMAINS, "study")
    assert {row["model"] for row in rows} == {"clip", "biomedclip", "plip"}
    assert {row["domain"] for row in rows} == {"chexpert", "papila"}
    assert cell(rows, "biomedclip", "papila")["exposure"] == "id"
    asked = table(MODELS, DOMAINS, "study", model_names=["mine"], domain_names=["vqa_rad", "chexpert"])
    assert [row["exposure"] for row in asked] == ["-", "-"]


def test_the_text_marks_where_the_profiles_differ_and_fits_the_width():
    wide = text(table(MODELS, DOMAINS), width=200)
    (line,) = (line for line in wide.splitlines() if line.startswith("biomedclip"))
    assert line.split() == ["biomedclip", "id", "ood*", "unknown", "ood"]
    assert "the other profile (study)" in wide
    assert "the other profile (ours)" in text(table(MODELS, DOMAINS, "study"), width=200)
    narrow = text(table(MODELS, DOMAINS), width=40)
    assert narrow.count("biomedclip") == 2
    assert max(map(len, narrow.splitlines()[:-2])) <= 40
    assert "*" not in text(table(MODELS, DOMAINS, domain_names=["phantom_oct"]))
    assert text([]) == "no model and domain of these have an entry"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"profile": "authors"}, "profile='authors'"),
        ({"model_names": ["clipp"]}, "Did you mean 'clip'?"),
        ({"domain_names": ["folder"]}, "domain='folder'"),
    ],
)
def test_what_is_not_there_is_named(arguments, expected):
    with pytest.raises(ConfigError) as error:
        table(MODELS, DOMAINS, **arguments)
    assert expected in str(error.value)


def test_the_studys_table_names_models_that_there_are_and_agrees_with_its_numbers():
    loaded = yaml.safe_load((ASSETS / "exposure_study.yaml").read_text())
    there = read_models()
    for task in loaded.values():
        for name, covered in task["models"].items():
            assert name in there
            assert set(covered) <= set(task["domains"])
            assert not covered or there[name].role == "specialist" or name in ("o3", "gemini")
    assert {task: len(part["models"]) for task, part in loaded.items()} == {"diagnosis": 8, "vqa": 10}
    assert study("medclip", "chexpert") == study("o3", "fairvlmed_vqa") == study("medsiglip", "papila") == "id"
    assert study("medgemma", "fairvlmed_vqa") == study("clip", "chexpert") == study("plip", "chexpert") == "ood"
    assert study("medclip", "slake") == study("tiny_clip", "chexpert") == "-"


def test_a_question_about_a_mixed_modality_reads_as_one():
    domain = Domain("d", "ct+mri", "diagnosis", [], FolderImages("."), label_names=("a", "b"))
    (query,) = diagnosis(domain, "Which does the {modality} image show: {options}?", "")(
        Example("1", "i", "g", "test", labels=(0,))
    )
    assert query.prompt == "Which does the ct or mri image show: a or b?"
