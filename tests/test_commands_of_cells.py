"""The command that a report shows for a cell composes to that cell."""

import dataclasses
import shlex
import sys

import pytest

from vlmbench.config.entry import compose
from vlmbench.config.product import compose_all
from vlmbench.records.command import _hydra, command_of, commands_of
from vlmbench.records.identity import identity

CASES = [
    ["seed=3"],
    ["finetune=linear_probe", "domain=phantom_oct", "domain.shots=16"],
    ["finetune.lr=0.003", "trainer.max_epochs=7", "trainer.num_workers=2"],
    ["domain=folder", r"domain.root='/my data/it\'s'", "domain.name=mine", "domain.modality=mri"],
    ["model=tiny_llava", "task=vqa", "finetune.scope=ML"],
    [r"domain.templates=['a \'b\' {label}, c\\','x=y: [z]','']"],
    ["domain.label_prompts.normal=[null_,'null','1.0',x y]"],
    [r"domain.label_prompts={pleural\ effusion:[fluid],a\:b\=c:[d]}"],
    ["model.name=mine", "model.source=hf:me/mine", "model.settings={a:1.5,b:true}"],
]


def composed(monkeypatch, *words, command="train"):
    monkeypatch.setattr(sys, "argv", [command, *words])
    return dataclasses.asdict(compose(command, "").configs[0])


def name_of(config):
    return identity(config, data="d", weights="w")


@pytest.fixture(scope="module")
def together():
    """Compose many lists of words, as a sweep does."""
    return lambda jobs: [dataclasses.asdict(config) for config in compose_all(*_hydra(), jobs)]


def test_a_command_composes_to_the_cell_that_it_is_of(together):
    configs = together([[], *CASES])
    lines = [command.line or command.reason for command in commands_of([{"config": config} for config in configs])]
    again = together([shlex.split(line)[3:] for line in lines])
    names = [name_of(config) for config in configs]
    assert [name_of(config) for config in again] == names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["chexpert", "ham10000", "bloodmnist", "vqa_rad"])
def test_a_domain_that_is_shipped_needs_no_more_than_its_name(together, name):
    (config,) = together([[f"domain={name}"]])
    command = command_of({"config": config})
    assert command.line.endswith(f"finetune=lora domain={name} seed=0"), command.reason


def test_what_is_typed_is_what_is_shown(monkeypatch):
    words = [
        "model=tiny_medclip",
        "task=diagnosis",
        "finetune=coop",
        "domain=phantom_oct",
        "seed=2",
        "trainer.patience=9",
    ]
    config = composed(monkeypatch, *words, "output=elsewhere")
    assert command_of({"config": config}).line == f"python -m vlmbench.train {' '.join(words)}"


def test_a_transfer_names_the_cell_it_is_made_from(monkeypatch):
    config = composed(monkeypatch, "domain=phantom_oct", "domain.corruption=noise", "trainer.max_epochs=3")
    record = {"kind": "transfer", "config": config}
    line = command_of(record, "runs/diagnosis/a b").line
    assert line == "python -m vlmbench.evaluate 'cell='\"'\"'runs/diagnosis/a b'\"'\"'' domain=phantom_oct " + (
        "domain.corruption=noise"
    )
    again = composed(monkeypatch, *shlex.split(line)[3:], command="evaluate")
    assert again["cell"] == "runs/diagnosis/a b"
    assert again["domain"] == config["domain"]
    assert "below the cell" in command_of(record).reason


def test_what_no_command_line_says_has_a_reason_and_spoils_no_other(monkeypatch):
    good = composed(monkeypatch)
    bad = composed(monkeypatch)
    bad["trainer"]["from_a_later_version"] = 1
    gone = composed(monkeypatch)
    del gone["domain"]["label_prompts"]["pleural effusion"]
    empty = {"model": {}, "domain": {"name": "x"}}
    made = commands_of([{"config": config} for config in (good, bad, gone, empty)] + [{}])
    assert made[0].line
    assert "from_a_later_version" in made[1].reason
    assert "pleural effusion" in made[2].reason
    assert "not complete" in made[3].reason
    assert "no configuration" in made[4].reason
