"""Configuration mistakes: one clear message with the valid choices, before torch is imported."""

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import ListConfig

from vlmbench.config import entry

MISTAKES = [
    (["finetune.rnk=4"], ["'rnk'", "'rank'", "alpha", "dropout"]),
    (["+finetune.foo=4"], ["'foo'", "rank"]),
    (["modle=tiny_clip"], ["'modle'", "'model'"]),
    (["model=tiny_clop"], ["tiny_clop", "tiny_clip", "tiny_llava"]),
    (["finetune.rank=many"], ["finetune.rank", "Integer"]),
    (["finetune.rank=0"], ["finetune.rank=0", "between 1 and 1024"]),
    (["finetune.schedule=cosin"], ["'cosine'", "linear", "constant"]),
    (["trainer.precision=fp16"], ["16-mixed", "32-true", "bf16-mixed"]),
    (
        ["model=tiny_llava", "finetune=linear_probe"],
        ["linear_probe", "generative", "zero_shot, connector, lora, qlora, full"],
    ),
    (["task=vqa"], ["task=vqa", "contrastive", "diagnosis"]),
    (["finetune.scope=ML"], ["finetune.scope='ML'", "vision+text"]),
    (["finetune.scope=text"], ["text tower", "finetune.classifier=text"]),
    (["model=tiny_llava", "finetune.scope=vision"], ["VML"]),
    (["model=clip", "finetune=connector"], ["connector", "contrastive", "linear_probe"]),
    (["model=tiny_llava", "finetune=coop"], ["coop", "generative", "zero_shot, connector, lora, qlora, full"]),
    (["finetune=lp_text", "domain.target=multilabel"], ["multi-label", "softmax", "coop or clip_adapter"]),
    (["finetune=lp_text", "model=blip2"], ["blip2", "several embeddings", "linear_probe"]),
    (["finetune=clip_adapter", "domain.target=multilabel", "domain.negative_templates=[]"], ["negative_templates"]),
    (["finetune=coop", "task=pretrain"], ["pretrain", "lora, qlora, full, connector"]),
    (["finetune=clip_adapter", "finetune.ratio=0"], ["finetune.ratio=0", "between 1e-06 and 1"]),
    (["domain=folder"], ["domain.root", "not set"]),
    (["domain=folder", "domain.root=/no/such/folder"], ["/no/such/folder", "labels.csv"]),
    (["domain=vqa_jsonl", "domain.root=.", "model=tiny_llava"], ["qa.jsonl"]),
    (["domain.templates=[a photo]"], ["{label}", "a photo"]),
    (["model.source=./no/such/checkpoint"], ["no/such/checkpoint", "config.json"]),
    (["model=xraygpt"], ["Vicuna_Radiology_fp16", "follow the links in the README"]),
    (["model.trust_remote_code=true"], ["trust_remote_code"]),
    (["task=pretrain", "finetune=zero_shot"], ["pretrain", "zero_shot"]),
    (["domain=phantom_mixture"], ["one modality"]),
    (["domain.target=multilabel", "finetune.classifier=text", "domain.negative_templates=[]"], ["negative_templates"]),
    (["domain.name=../mine"], ["domain.name", "begin with a letter"]),
    (["domain.modalities=[]", "task=vqa", "model=tiny_llava"], ["domain.modalities=[]", "name one"]),
    (["model=o3", "finetune=lora"], ["finetune=lora does not apply to o3, a hosted model. Valid choices: zero_shot."]),
    (["seed"], ["seed"]),
    (["-m", "seed=0,1", "--cfg", "job"], ["--multirun, --cfg"]),
]


@pytest.mark.parametrize(("arguments", "expected"), MISTAKES, ids=[" ".join(row[0]) for row in MISTAKES])
def test_a_mistake_is_one_message_with_the_valid_choices(command, arguments, expected):
    status, out, err = command("train", *arguments)
    assert status == 2
    assert err.startswith("vlmbench: ")
    assert "Traceback" not in err
    assert out == ""
    for word in expected:
        assert word in err


@pytest.mark.parametrize("arguments", [["model=tiny_clip"], ["-m", "seed=0,1"]])
def test_ctrl_c_is_no_mistake_where_omegaconf_makes_one_of_it(command, monkeypatch, arguments):
    def torn(*_):  # in whatever list comes first
        try:
            raise KeyboardInterrupt
        finally:  # as its own tidying up does with what is half made
            None.tidy_up()  # type: ignore[attr-defined]

    monkeypatch.setattr(ListConfig, "_set_value_impl", torn)
    status, out, err = command("train", *arguments)
    assert (status, out) == (130, "")
    assert err == "vlmbench: interrupted; the same command goes on where it stopped.\n"


def test_a_chain_of_faults_that_comes_round_is_followed_once():
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    with pytest.raises(ValueError, match="first"), entry._ctrl_c_as_it_came():
        raise first


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lerning_rates: {lora: 1e-4}", ["'lerning_rates'", "'learning_rates'", "pretraining_modalities"]),
        ("role: generalst", ["model.role='generalst'", "'generalist'"]),
        ("role: [", ["own.yaml", "line 6"]),
    ],
)
def test_a_mistake_in_a_users_own_yaml_is_one_message(command, tmp_path, line, expected):
    (tmp_path / "model").mkdir()
    head = "defaults:\n  - /schema/model/contrastive@_here_\nname: own\nsource: package:tiny_clip\n"
    (tmp_path / "model" / "own.yaml").write_text(f"{head}{line}\n")
    status, _, err = command("train", "--config-dir", tmp_path, "model=own")
    assert status == 2
    assert err.startswith("vlmbench: ")
    for word in expected:
        assert word in err


def test_nothing_heavy_is_imported_before_the_configuration_is_right():
    calls = [["--help"], ["--cfg", "job"], ["finetune.rnk=4"], ["task=vqa"], ["domain=folder", "domain.root=/nowhere"]]
    script = (
        "import sys\n"
        "from vlmbench.config.entry import run\n"
        "from vlmbench.train import main\n"
        f"for arguments in {calls!r}:\n"
        "    sys.argv = ['train', *arguments]\n"
        "    try:\n        run(main)\n    except SystemExit:\n        pass\n"
        "heavy = {'torch', 'lightning', 'transformers', 'pandas', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))\n"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "HEAVY []" in printed
    assert "Config groups" in printed


def test_a_users_own_config_dir_adds_a_domain(command, tmp_path):
    (tmp_path / "domain").mkdir()
    (tmp_path / "domain" / "mine.yaml").write_text(
        "defaults:\n  - /schema/domain/phantom@_here_\nname: mine\nmodality: oct\nmodalities: [oct]\n"
    )
    status, out, _ = command("train", "--config-dir", tmp_path, "domain=mine", "--cfg", "job")
    assert status == 0
    assert "name: mine" in out
    status, out, _ = command("train", "--config-dir", tmp_path, "--help")
    assert status == 0
    assert "mine" in out


@pytest.mark.parametrize("name", ["train", "evaluate", "report", "fetch", "models"])
def test_every_command_is_reached_both_ways(name):
    by_module = subprocess.run([sys.executable, "-m", f"vlmbench.{name}", "--help"], capture_output=True, text=True)
    by_name = subprocess.run([sys.executable, "-m", "vlmbench", name, "--help"], capture_output=True, text=True)
    assert by_module.returncode == by_name.returncode == 0
    assert by_module.stdout == by_name.stdout
    assert f"python -m vlmbench.{name}" in by_module.stdout


def test_an_unknown_command_lists_the_commands():
    ran = subprocess.run([sys.executable, "-m", "vlmbench", "tarin"], capture_output=True, text=True)
    assert ran.returncode == 2
    assert "'tarin'" in ran.stderr
    assert "evaluate" in ran.stderr


def test_every_yaml_file_composes_and_says_what_it_is():
    from vlmbench.config.store import conf_dir

    files = sorted(conf_dir().rglob("*.yaml"))
    assert len(files) > 20
    for path in files:
        head = path.read_text().splitlines()
        assert any(line.startswith("# ") and "Used by" in " ".join(head[:3]) for line in head[:3]), path
    groups = {path.parent.name for path in files if path.parent != conf_dir()}
    assert groups == {"model", "task", "finetune", "domain", "trainer", "logger", "sweep", "launcher"}


def test_every_option_of_every_group_can_be_chosen(command):
    from vlmbench.config.store import conf_dir

    for path in sorted(Path(conf_dir()).glob("*/*.yaml")):
        group, name = path.parent.name, path.stem
        extra = ["domain.root=."] if name in ("folder", "vqa_jsonl") else []
        status, out, err = command("train", f"{group}={name}", *extra, "--cfg", "job", "--resolve")
        assert status == 0, (path, err)
        assert f"{group}:" in out or group == "launcher"  # those set Hydra's own node
