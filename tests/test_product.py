"""A product composed in parts is, point by point, what Hydra composes; and its cells keep their identities."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig

from vlmbench.config import product
from vlmbench.config.checks import check_cell
from vlmbench.config.entry import compose, explain
from vlmbench.config.faults import ConfigError, ImpossibleCellError
from vlmbench.config.parts import ANYTHING, HYDRA, Parts, UnsureError, mentioned
from vlmbench.config.product import SAMPLE, compose_all, compose_one
from vlmbench.config.schema.published import rule_in_force
from vlmbench.config.store import conf_dir
from vlmbench.records.identity import IDLE, NOT_IDENTITY, RESULT_VERSION, Identities, digest, identity

OPTIONS = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in conf_dir().iterdir()
    if folder.is_dir()
}
THEIR_OWN = ("folder", "vqa_jsonl", "captions_jsonl")
# What has no default.
NEEDED = {"hosted_local": ["model.source=x"], **{name: ["domain.root=somewhere"] for name in THEIR_OWN}}


@dataclass
class Multirun:
    """What Hydra hands to the sweeper of a typed command, and how often it is asked to compose a point."""

    loader: ConfigLoaderImpl
    master: DictConfig
    asked: list[tuple[str, ...]]

    def by_hydra(self, words: Sequence[str]) -> str:
        """Return the point as Hydra composes it, or what it says is wrong."""
        try:
            return repr(compose_one(self.loader, self.master, words))
        except Exception as error:  # noqa: BLE001 - compared
            return f"wrong: {explain(error)}"

    def whole(self, words: Sequence[str]) -> Any:
        return compose_one(self.loader, self.master, words)

    def check(self, jobs: Sequence[Sequence[str]], *, most: int = SAMPLE + 1) -> list[Any]:
        """Compose points from parts, with Hydra asked for few, and compare each with Hydra's."""
        self.asked.clear()
        configs = list(compose_all(self.loader, self.master, jobs))
        assert len(self.asked) <= most, self.asked
        for words, config in zip(jobs, configs, strict=True):
            assert repr(config) == self.by_hydra(words), words
        return configs


@pytest.fixture
def multirun(monkeypatch):
    """Return a function that takes a command's arguments and returns what its sweeper is handed."""

    def start(*arguments: str) -> Multirun:
        caught: list[Multirun] = []

        def catch(loader: ConfigLoaderImpl, master: DictConfig, jobs: object) -> list[Any]:
            caught.append(Multirun(loader, master, []))
            return []

        with monkeypatch.context() as patch:
            patch.setattr(product, "compose_all", catch)
            patch.setattr(sys, "argv", ["train", "-m", *map(str, arguments)])
            compose("train", "", sweep=lambda sweep: None)
        (made,) = caught
        load = made.loader.load_sweep_config

        def counted(master: DictConfig, words: list[str]) -> DictConfig:
            made.asked.append(tuple(words))
            return load(master, words)

        monkeypatch.setattr(made.loader, "load_sweep_config", counted)
        return made

    return start


def test_every_option_of_every_group_is_composed_as_by_hydra(multirun):
    words = [[f"{group}={name}", *NEEDED.get(name, [])] for group, names in OPTIONS.items() for name in names]
    assert len(words) > 100
    configs = multirun().check(words, most=SAMPLE + len(OPTIONS["sweep"]) + len(OPTIONS["launcher"]))
    assert {config.task.name for config in configs} == {"diagnosis", "vqa", "pretrain"}
    assert {config.model.name for config in configs} >= {"clip", "tiny_llava", "o3"}


def test_what_is_typed_beats_what_a_model_chooses(multirun):
    models, tasks = ("tiny_clip", "tiny_llava", "o3"), ("", "task=diagnosis", "task=pretrain")
    methods = ("", "finetune=lora", "finetune=zero_shot")
    domains = ("domain=phantom_oct", "domain=chexpert")
    points = itertools.product([f"model={name}" for name in models], tasks, methods, domains)
    configs = multirun().check([[word for word in point if word] for point in points])
    chosen = {(config.model.name, config.task.name, config.finetune.name) for config in configs}
    assert {("tiny_llava", "vqa", "lora"), ("o3", "vqa", "zero_shot"), ("o3", "diagnosis", "lora")} <= chosen


VALUES = [
    "seed=3",
    "domain.fraction=0.05",
    "domain.shots=4",
    "domain.licence='a, b'",
    'domain.licence="it\'s = {free}"',
    "domain.licence=''",
    "domain.templates=['a scan, of {label}','{label}']",
    "domain.label_prompts={normal: [a healthy one], 0: ['x, y']}",
    "domain.label_prompts.normal=[a]",
    "++domain.label_prompts.other=[b]",
    "domain.exposure=${oc.select:nowhere.at.all,ood}",
    "~domain.fraction",
    "model.settings={a: 1, b: [x, {c: 2.0}]}",
    "model.settings.size=7",
    "model.learning_rates.lora=1e-3",
    "model.learning_rates={lora: 2e-3, full: 1}",
    "model.default_scope=${finetune.name}",
    "model.licence=${domain.licence}",
    "model.name=${oc.env:HOME}",
    "finetune.rank=16",
    "finetune.scope=text",
    "finetune.lr=${model.learning_rates.full}",
    "finetune.lr=null",
    "task.resamples=17",
    "task.resamples=1.5",
    "+task.resamples=5",
    "++task.resamples=5",
    "+task.nothing=1",
    "trainer={max_epochs: 2, precision: bf16-mixed}",
    "trainer.batch_size=eight",
    "trainer.max_epochs=${seed}",
    "trainer.num_workers=${.devices}",
    "trainer.accelerator=${.${logger.name}}",
    "output=runs/${model.name}-${domain.${oc.select:nothing,name}}",
    "output=${now:%Y}",
    "lock=${sweep.name}",
    "logger.name=none",
    "logger=wandb",
    "logger=nowhere",
    "+logger=wandb",
    "~logger",
    "~sweep",
    "task=vqa",
    "sweep=demo",
    "+trainer.max_epochs=3",
    "deterministic=false",
    "~deterministic",
    "hydra.job.name=x",
    "+nothing=1",
    "nothing.at.all=1",
]


@pytest.mark.parametrize("seed", range(3))
def test_random_points_are_composed_as_by_hydra_or_not_at_all(multirun, seed):
    """What is wrong to Hydra is wrong in parts too, so that Hydra tells it."""
    rng, run = random.Random(seed), multirun()
    parts = Parts(run.loader, run.master, run.whole)
    alike = left = 0
    for _ in range(70):
        words = [
            f"{group}={rng.choice(OPTIONS[group])}" for group in ("model", "domain", "finetune") if rng.random() < 0.8
        ]
        words += rng.sample(VALUES, rng.choice([0, 1, 1, 2, 2, 3]))
        rng.shuffle(words)
        expected = run.by_hydra(words)
        try:
            found = repr(parts.point(words))
        except Exception as error:  # noqa: BLE001 - see below
            # Only what Hydra alone resolves, such as the date, may be left to it where it is right.
            if not expected.startswith("wrong: "):
                left += 1
                unsure = isinstance(error, UnsureError)
                assert unsure, (words, repr(error))  # noqa: PT017 - the error is compared with Hydra's
        else:
            assert found == expected, words
            alike += 1
    assert alike > 30
    assert left < 15


@pytest.fixture
def own(tmp_path):
    """Return a user's folder of YAML files that do all that Hydra allows."""
    files = {
        "model/mine.yaml": "defaults:\n  - /schema/model/generative@_here_\n"
        "  - override /task@_global_.task: diagnosis\n  - _self_\nname: mine\nsource: a/b\nrole: generalist\n"
        "family: own\nlicence: ${task.name} ${..seed}\nlearning_rates: {lora: 1e-4}\n",
        "model/grown.yaml": "defaults:\n  - clip\n  - _self_\nname: grown\n",
        "finetune/far.yaml": "# @package _global_\ndefaults:\n  - /schema/finetune/lora@finetune\n"
        "finetune:\n  rank: 3\n  scope: vision\ndomain:\n  shots: 5\n"
        "output: runs/${model.name}/${domain.name}\n",
        "launcher/long.yaml": "# @package _global_\ndefaults:\n  - override /hydra/launcher: basic\n"
        "trainer:\n  max_epochs: 7\ndomain:\n  licence: ${trainer.max_epochs} epochs\n",
        "domain/dated.yaml": "defaults:\n  - phantom_oct\n  - _self_\nlicence: ${now:%Y}\n",
        "domain/following.yaml": "defaults:\n  - phantom_oct\n  - /for_method@_here_: ${finetune}\n  - _self_\n"
        "name: following\n",
        "for_method/lora.yaml": "shots: 1\n",
        "for_method/full.yaml": "shots: 2\nlicence: lr ${finetune.lr}\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_a_users_own_files_may_do_anything(multirun, own):
    run = multirun("--config-dir", own)
    models = ("mine", "grown", "clip", "tiny_llava")
    domains, methods = ("phantom_oct", "chexpert", "papila"), ("lora", "full", "far")
    points = itertools.product(models, domains, methods)
    jobs = [[f"model={m}", f"domain={d}", f"finetune={f}"] for m, d, f in points]
    jobs += [[*words, "launcher=long"] for words in jobs[:6]]
    configs = run.check(jobs, most=SAMPLE + 2)
    assert configs[0].model.licence == "diagnosis 0"
    assert configs[2].output == "runs/mine/phantom_oct"
    assert (configs[2].domain.shots, configs[0].domain.shots) == (5, 0)
    # The file that writes to both sections comes after each of theirs.
    assert (configs[-1].trainer.max_epochs, configs[-1].domain.licence) == (7, "7 epochs")


def test_a_defaults_list_that_follows_other_choices_is_followed(multirun, own):
    run = multirun("--config-dir", own)
    names = itertools.product(("clip", "tiny_clip"), ("phantom_oct", "following", "papila"), ("lora", "full"))
    jobs = [[f"model={m}", f"domain={d}", f"finetune={f}"] for m, d, f in names]
    configs = run.check(jobs)
    assert {(config.domain.name, config.domain.shots) for config in configs} >= {("following", 1), ("following", 2)}
    assert "lr 1e-05" in {config.domain.licence for config in configs}


def test_a_point_that_parts_cannot_be_trusted_with_is_composed_by_hydra_and_that_is_said(multirun, own, capsys):
    jobs = [[f"domain={name}", f"seed={seed}"] for name in ("dated", "phantom_oct") for seed in range(5)]
    multirun("--config-dir", own).check(jobs, most=SAMPLE + 1 + 5)
    assert "composed one by one, which takes longer: domain has an interpolation that Hydra" in capsys.readouterr().err


def test_should_parts_differ_from_hydra_then_hydra_composes_all(multirun, monkeypatch, capsys):
    point = Parts.point
    monkeypatch.setattr(Parts, "point", lambda self, words: dataclasses.replace(point(self, words), seed=99))
    multirun().check([[f"seed={seed}"] for seed in range(9)], most=9 + SAMPLE + 1)
    assert "differs from Hydra's own" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "swept"),
    [
        ("finetune.rank=many", "finetune.rank=4,many"),
        ("model=tiny_clop", "model=tiny_clip,tiny_clop"),
        ("domain=nowhere", "domain=phantom_oct,nowhere"),
        ("finetune.rnk=4", "finetune.rnk=4,5"),
        ("+finetune.foo=4", "+finetune.foo=4,5"),
        ("+foo=4", "+foo=4,5"),
        ("modle=tiny_clip", "modle=tiny_clip,clip"),
        ("domain=folder", "domain=phantom_oct,folder"),
        ("domain.templates=3", "domain.templates=['a {label}'],3"),
        ("seed=1.5", "seed=1,1.5"),
    ],
)
def test_what_is_wrong_is_said_as_of_a_single_cell(command, wrong, swept):
    # Not drawn for the comparison with Hydra: one of many points.
    others = ["trainer.max_epochs=1,2,3,4", "trainer.patience=1,2,3,4,5"]
    status, _, alone = command("train", wrong)
    many, out, among = command("train", "-m", *others, swept)
    assert status == many == 2
    assert among == alone
    assert alone.startswith("vlmbench: ")
    assert out == ""


def test_points_share_what_is_alike_and_nothing_else(multirun):
    run = multirun()
    jobs = [["model=tiny_clip", "domain.templates=['a {label}']", f"seed={seed}"] for seed in range(8)]
    jobs += [["model=tiny_medclip", "domain.templates=['a {label}', b]", f"seed={seed}"] for seed in range(8)]
    configs = list(compose_all(run.loader, run.master, jobs))
    assert configs[0] is not configs[1]
    assert configs[0].model is configs[7].model
    before = copy.deepcopy(configs[8:])
    configs[0].domain.templates.append("changed")
    configs[0].trainer = None
    assert configs[8:] == before
    assert configs[1].trainer is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model.lr", set()),
        ("${model.lr}", {"model", "lr"}),
        ("a ${..seed} b", {"seed"}),
        ("${oc.select:model.rates.lora,null}", {"model", "rates", "lora"}),
        ("${a.${b}}", {ANYTHING, "a", "b"}),
        ("${hydra.job.num}", {HYDRA}),
        ("${hydra:job.num}", {HYDRA}),
        ("${now:%Y}", {HYDRA}),
        ("${oc.env:HOME}", {"HOME"}),
    ],
)
def test_interpolations_name_the_sections_that_they_reach(text, words):
    found = mentioned([text])
    assert words <= found
    assert {ANYTHING, HYDRA} & found == {ANYTHING, HYDRA} & words


def test_ten_thousand_points_of_thousands_of_kinds_are_composed_in_time():
    models = [name for name in OPTIONS["model"] if name not in ("gemini", "o3", "hosted_local")][:40]
    domains = [name for name in OPTIONS["domain"] if name not in THEIR_OWN][:28]
    script = (
        "import sys, time\n"
        "from vlmbench.config.entry import compose\n"
        f"sys.argv = ['train', '-m', 'model={','.join(models)}', 'domain={','.join(domains)}',"
        " 'finetune=lora,full,zero_shot', 'seed=0,1,2']\n"
        "composed = compose('train', '')\n"
        "print(len(composed.configs), 'torch' in sys.modules, time.process_time())\n"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    count, torch, seconds = printed.split()
    assert (int(count), torch) == (len(models) * len(domains) * 9, "False")
    assert float(seconds) < 25  # 6 on one core


def plainly(config: dict[str, Any]) -> dict[str, Any]:
    """Return what decides the result, path by path on a copy."""
    kept = copy.deepcopy(config)
    for path in NOT_IDENTITY:
        group, _, leaf = path.rpartition(".")
        (kept.get(group, {}) if group else kept).pop(leaf, None)
    for path, value in IDLE.items():
        group, _, leaf = path.partition(".")
        if kept[group].get(leaf) == value:
            del kept[group][leaf]
    domain = kept["domain"]
    if "rules" in domain:
        name = rule_in_force(domain["target"], domain["split"], domain["rules"])
        if name == rule_in_force("auto", domain["split"], domain["rules"]):
            domain["target"] = "auto"
        domain["rules"] = {name: domain["rules"].get(name)}
    return kept


def test_no_identity_of_any_possible_cell_is_another_by_the_quick_way(multirun):
    run = multirun()
    names = itertools.product(OPTIONS["model"], set(OPTIONS["domain"]) - set(THEIR_OWN), OPTIONS["finetune"])
    jobs = [[f"model={m}", *NEEDED.get(m, []), f"domain={d}", f"finetune={f}"] for m, d, f in sorted(names)]
    known, found = Identities(), set()
    for number, config in enumerate(compose_all(run.loader, run.master, jobs)):
        try:
            check_cell(config)
        except ImpossibleCellError:
            continue
        except ConfigError:  # an endpoint without its key, weights that a user has to bring: still cells
            pass
        data, weights = f"data {number % 3}", f"weights {number % 5} é"
        plain = dataclasses.asdict(config)
        value = {"version": RESULT_VERSION, "config": plainly(plain), "data": data, "weights": weights}
        expected = digest(value)
        assert known.of(config, data=data, weights=weights) == expected == identity(plain, data=data, weights=weights)
        found.add(expected)
    assert len(found) > 1000


def test_the_quick_way_tells_what_differs_and_not_what_does_not():
    from vlmbench.config import schema

    def cell(**changed: Any) -> schema.CellConfig:
        domain = schema.PhantomDomainConfig(name="a", modality="oct", modalities=["oct"], **changed.pop("domain", {}))
        model = schema.ContrastiveModelConfig(name="m", source="s")
        task, finetune = schema.DiagnosisTaskConfig(), schema.LoraConfig()
        return schema.CellConfig(model=model, task=task, finetune=finetune, domain=domain, **changed)

    known = Identities()
    one = known.of(cell(), data="d", weights="w")
    assert one == known.of(cell(output="elsewhere", domain={"licence": "x"}), data="d", weights="w")
    others = [cell(seed=1), cell(domain={"shots": 2}), cell(domain={"templates": ["{label}"]})]
    assert len({one, *(known.of(other, data="d", weights="w") for other in others)}) == 4
    assert one != known.of(cell(), data="e", weights="w") != known.of(cell(), data="d", weights="v")
