"""Every public dataset: its YAML file is complete, its miniature is in the official layout, and every rule builds."""

import dataclasses
import json
from pathlib import Path

import domains_table
import pytest
from make_miniature import MAKERS, make

from vlmbench.catalogue.domain_show import facts, text
from vlmbench.catalogue.domain_table import here, layout
from vlmbench.catalogue.read import group_files, read_domains
from vlmbench.cell.domain import build_domain
from vlmbench.config.schema import PublishedDomainConfig
from vlmbench.config.schema.published import KINDS
from vlmbench.domains.base import SPLITS, DomainError
from vlmbench.domains.published.readers import READERS
from vlmbench.domains.published.study import STUDY_SPLITS

DOMAINS = {name: d for name, d in read_domains().items() if isinstance(d, PublishedDomainConfig)}
TASKS = {"diagnosis", "vqa", "pretrain"}
every_domain = pytest.mark.parametrize("name", sorted(DOMAINS))


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    """Return a dataset's configuration with its miniature as root; each is made once."""
    held: dict[str, PublishedDomainConfig] = {}

    def of(name: str) -> PublishedDomainConfig:
        if name not in held:
            root = tmp_path_factory.mktemp(name)
            make(name, root)
            held[name] = dataclasses.replace(DOMAINS[name], root=str(root))
        return held[name]

    return of


@every_domain
def test_the_yaml_file_says_all_that_a_user_must_know(name):
    domain = DOMAINS[name]
    assert domain.name == name
    for key in ("title", "modality", "licence", "citation", "homepage", "group", "layout", "kinds"):
        assert getattr(domain, key), f"{key} is empty"
    assert domain.homepage.startswith("http")
    assert set(domain.kinds) <= set(KINDS)
    assert set(domain.published) <= {*SPLITS, "all"}
    assert domain.downloads or domain.how_to_get, "neither downloads nor how_to_get"
    if domain.access == "gated":
        assert domain.how_to_get, "gated, and nothing says whom to ask"
    assert domain.reader in READERS
    assert domain.study_split in STUDY_SPLITS
    first, _, _ = group_files("domain")[name].read_text(encoding="utf-8").partition("defaults:")
    assert first.startswith("# ")
    assert "Used by:" in first
    told = facts(name, domain)
    assert json.loads(json.dumps(told)) == told
    assert text(told).startswith(f"{name}: {domain.title}; {domain.modality}")


@every_domain
def test_every_label_rule_is_whole(name):
    domain = DOMAINS[name]
    assert domain.tasks
    assert set(domain.tasks) <= TASKS
    assert bool(domain.rules) == ("diagnosis" in domain.tasks)
    for rule_name, rule in domain.rules.items():
        assert len(rule.labels) >= (1 if rule.columns else 2), rule_name
        assert len(set(rule.labels)) == len(rule.labels), rule_name
        assert bool(rule.column) != bool(rule.columns), rule_name
        assert set(rule.label_prompts) <= set(rule.labels), rule_name
        assert rule.templates, rule_name
        assert all("{label}" in template for template in [*rule.templates, *rule.negative_templates]), rule_name
        if rule.columns:
            assert list(rule.columns) == list(rule.labels), rule_name
            assert set(rule.map.values()) <= {"0", "1"}, rule_name
            assert rule.negative_templates, f"{rule_name} is multi-label: text prompts need negative templates"
        else:
            assert set(rule.map.values()) <= set(rule.labels), rule_name


@every_domain
def test_the_miniature_is_in_the_layout_that_the_yaml_file_names(name, miniature):
    assert name in MAKERS
    domain = miniature(name)
    assert [part for part, there in layout(domain).items() if not there] == []
    assert here(domain) == "present"
    assert here(DOMAINS[name]) in ("absent", "partial", "present")


#: What a set does not have, and how it says so.
IMPOSSIBLE = {
    ("pmc_oa", "study", "auto"): "no official split; set domain.split=ours",
    ("papila", "study", "suspects"): "no row of .'suspected glaucoma'.",
}


@every_domain
def test_the_miniature_builds_in_both_splits_for_every_task_and_rule(name, miniature):
    domain = miniature(name)
    for split in ("study", "ours"):
        for task in domain.tasks:
            for target in domain.rules if task == "diagnosis" else ["auto"]:
                config = dataclasses.replace(domain, split=split, target=target)
                where = f"split={split} task={task} target={target}"
                if (fault := IMPOSSIBLE.get((name, split, target))) is not None:
                    with pytest.raises(DomainError, match=fault):
                        build_domain(config, task)
                    continue
                built = build_domain(config, task)
                assert built.split("train"), where
                assert built.split("test"), where
                assert built.origin, where
                if split == "ours":
                    assert built.split("val"), where
                if task == "diagnosis":
                    assert built.label_names == tuple(domain.rules[target].labels), where
                    carried = {i for example in built.split("train") for i in example.labels}
                    assert carried == set(range(len(built.label_names))), where
                elif task == "vqa":
                    assert all(example.question and example.answer for example in built.examples), where
                else:
                    assert all(example.caption for example in built.examples), where
                image = built.images.load(built.examples[0].image)
                assert image.mode == "RGB", where
                known = {attribute for example in built.examples for attribute in example.attributes}
                assert known == set(domain.attributes), where


@every_domain
def test_a_share_and_a_corruption_of_every_miniature_build(name, miniature):
    domain = dataclasses.replace(miniature(name), split="ours")
    built = build_domain(dataclasses.replace(domain, fraction=0.5, corruption="jpeg"), domain.tasks[0])
    assert built.name == f"{name}@50%~jpeg3"
    assert built.images.load(built.examples[0].image).mode == "RGB"
    assert any("set aside from train" in row["reason"] for row in built.left_out)


def test_the_readme_has_the_table_as_it_is_now():
    told = domains_table.README.read_text(encoding="utf-8")
    assert domains_table.updated(told) == told, "python scripts/domains_table.py"
    assert all(f"| `{name}` |" in told for name in DOMAINS)


def test_every_reader_and_every_maker_has_a_domain():
    assert set(READERS) == {domain.reader for domain in DOMAINS.values()}
    assert set(MAKERS) == set(DOMAINS)
    assert Path(domains_table.README).is_file()
