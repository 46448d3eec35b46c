"""A label rule of a user's own: what is wrong in it is told before a table is read; and where a rule is changed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from make_miniature import make

from vlmbench.catalogue.read import named_domain
from vlmbench.cell.domain import build_domain
from vlmbench.config import schema
from vlmbench.config.entry import compose
from vlmbench.config.store import conf_dir
from vlmbench.domains.base import Domain, DomainError

SKIN = {"column": "dx", "map": {"mel": "malignant", "*": "benign"}, "labels": ["benign", "malignant"]}
CHEST = {
    "columns": {"effusion": "Pleural Effusion"},
    "map": {"1.0": "1", "*": "0"},
    "labels": ["effusion"],
    "negative_templates": ["no {label}"],
}


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rules")
    for name in ("ham10000", "chexpert", "gf3300"):
        make(name, folder / name)
    return folder


def built(name: str, rule: dict[str, Any], originals: Path, tmp_path: Path) -> Domain:
    """Build a domain by a YAML of the user's own, a copy of ours with one rule."""
    content = yaml.safe_load((conf_dir() / "domain" / f"{name}.yaml").read_text())
    (tmp_path / "domain").mkdir()
    (tmp_path / "domain" / "mine.yaml").write_text(yaml.safe_dump({**content, "name": "mine", "rules": {"own": rule}}))
    domain = named_domain("mine", str(tmp_path), [f"root={originals / name}"])
    return build_domain(domain, "diagnosis")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"column": "dxx"}, "takes the column 'dxx'; there are lesion_id, image_id, dx,"),
        ({"column": ""}, "`column`, for one label an image, or `columns`, for several; it has neither"),
        ({"columns": {"benign": "dx"}}, "it has both"),
        ({"labels": ["benign", "malignnt"]}, "maps 'mel' to 'malignant', which is none of 'benign', 'malignnt'"),
        ({"labels": ["benign", "malignant", "benign"]}, "it needs two or more, each once"),
        ({"labels": ["benign"], "map": {"*": "benign"}}, "the labels 'benign'; it needs two or more"),
        ({"labels": []}, "the labels none; it needs two or more"),
        ({"map": {"mel": "malignant", "nv": "benign"}}, "column 'dx' has the value 'akiec' in"),
        (
            {"leave_out": ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]},
            "the label rule leaves out every row, by column 'dx'",
        ),
        ({"label_prompts": {"malignnt": ["a melanoma"]}}, "phrases for 'malignnt', but the labels are"),
        ({"templates": ["a {label} on {skin}"]}, "must have the placeholder {label} and no other"),
    ],
)
def test_a_mistake_in_a_rule_of_one_label_is_named(change, said, originals, tmp_path):
    with pytest.raises(DomainError) as caught:
        built("ham10000", {**SKIN, **change}, originals, tmp_path)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": ["efusion"]}, "has 'effusion', 'efusion' either in `labels` or in `columns` alone"),
        ({"columns": {"effusion": "Pleural Efusion"}}, "takes the column 'Pleural Efusion'"),
        ({"map": {"1.0": "1"}}, "column 'Pleural Effusion' has the value ''; the label rule must map it to 0 or 1"),
        ({"map": {"1.0": True, "*": False}}, "which is none of '0', '1'; YAML reads a bare yes or no as true"),
        ({"leave_out": ["-1.0"]}, "leaves out rows by a value of `column`; with `columns` it cannot"),
        ({"negative_templates": []}, "needs negative_templates"),
    ],
)
def test_a_mistake_in_a_rule_of_several_labels_is_named(change, said, originals, tmp_path):
    with pytest.raises(DomainError) as caught:
        built("chexpert", {**CHEST, **change}, originals, tmp_path)
    assert said in str(caught.value)


def test_a_rule_of_several_labels_may_have_one(originals, tmp_path):
    domain = built("chexpert", CHEST, originals, tmp_path)

    assert domain.multi_label
    assert domain.label_names == ("effusion",)
    assert {row.labels for row in domain.examples} == {(), (0,)}


def test_a_bare_yes_that_yaml_reads_as_true_is_explained(originals, tmp_path):
    rule = {"column": "glaucoma", "map": {True: "glaucoma", False: "normal"}, "labels": ["normal", "glaucoma"]}
    with pytest.raises(DomainError, match="a bare yes or no as true or false, so put it in quotes"):
        built("gf3300", rule, originals, tmp_path)


def test_a_value_to_leave_out_that_no_row_has_is_told(originals, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        domain = built("ham10000", {**SKIN, "leave_out": ["bkll"]}, originals, tmp_path)

    assert "No row of column 'dx' has 'bkll'" in caplog.text
    assert not domain.left_out


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("domain.settings.view=frontal", "settings", {"folder": "CheXpert-v1.0-small", "view": "frontal"}),
        ("domain.settings.more=1", "settings", {"folder": "CheXpert-v1.0-small", "view": "all", "more": 1}),
        ("domain.label_prompts={normal:[a clear chest]}", "label_prompts", {"normal": ["a clear chest"]}),
        (
            "domain.attributes.finding=Edema",
            "attributes",
            {"sex": "Sex", "age": "Age", "view": "AP/PA", "finding": "Edema"},
        ),
    ],
)
def test_the_command_line_puts_entries_into_a_mapping_without_a_plus(override, key, value, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train", "domain=chexpert", override])

    (config,) = compose("train", "usage").configs

    assert isinstance(config.domain, schema.PublishedDomainConfig)
    assert getattr(config.domain, key) == value


def test_phrases_that_are_set_for_one_label_leave_those_of_the_others(originals):
    phrases = "label_prompts={malignant: [melanoma]}"
    domain = named_domain("ham10000", overrides=[f"root={originals / 'ham10000'}", "split=study", phrases])

    assert build_domain(domain, "diagnosis").prompts.positive == {
        "benign": ("a photo of benign keratosis-like lesions",),
        "malignant": ("a photo of melanoma",),
    }
