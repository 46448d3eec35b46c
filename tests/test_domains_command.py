"""`python -m vlmbench.domains`: the table, one domain in words, its contact sheet, audits, exposure."""

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_miniature import make
from PIL import Image, ImageDraw
from real_data import real_set

from vlmbench.catalogue import domain_table
from vlmbench.catalogue.domain_show import facts, text
from vlmbench.catalogue.read import named_domain, read_domains
from vlmbench.cell.domain import build_domain
from vlmbench.config import schema
from vlmbench.config.store import conf_dir
from vlmbench.domains.base import Example
from vlmbench.domains.phantom.world import World
from vlmbench.domains.sheet import COLUMNS, TILE, draw_sheet
from vlmbench.domains.subgroups import MOST, subgroups

DOMAINS = read_domains()
PHANTOM = schema.PhantomDomainConfig(name="phantom", modality="oct", modalities=["oct"], patients=12)


@pytest.fixture
def domains(monkeypatch, capsys):
    """Run the command in this process; returns status, stdout, stderr."""

    def run_domains(*arguments):
        from vlmbench.config.entry import run
        from vlmbench.domains.__main__ import main

        monkeypatch.setattr(sys, "argv", ["domains", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run(main)
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run_domains


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    return make("chexpert", tmp_path_factory.mktemp("chexpert"))


@pytest.fixture
def folder(tmp_path):
    """Write ten images of five patients with a split, one patient in train and test, and return the folder."""
    world, rows = World(3, 64), []
    for number in range(10):
        Image.fromarray(world.render("oct", number, 0)).save(tmp_path / f"{number}.png")
        split = ["train", "train", "val", "test", "test"][number // 2]
        label = ["normal", "abnormal"][number % 2]
        rows.append({"image": f"{number}.png", "label": label, "split": split, "patient_id": f"p{number // 2}"})
    pd.DataFrame(rows).to_csv(tmp_path / "labels.csv", index=False)
    return tmp_path


# ------------------------------------------------------------------------------------------------------- the table


def test_every_domain_is_in_the_table(domains):
    status, out, _ = domains()
    assert status == 0
    lines = out.splitlines()
    assert lines[0].split() == list(domain_table.HEAD)
    assert [line.split()[0] for line in lines[1:]] == sorted(
        path.stem for path in (conf_dir() / "domain").glob("*.yaml")
    )
    chexpert = next(line for line in lines if line.startswith("chexpert "))
    assert "223,414" in chexpert
    assert "gated" in chexpert
    assert next(line for line in lines if line.startswith("phantom_oct ")).endswith("made")
    assert domains("list")[1] == out


def test_the_table_is_quick_and_needs_neither_torch_nor_pandas():
    script = (
        "import sys, time\n"
        "sys.argv = ['domains', 'list', '--json']\n"
        "from vlmbench.domains.__main__ import main\n"
        "main()\n"
        "heavy = {'torch', 'transformers', 'pandas', 'lightning', 'sklearn'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy), file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "HEAVY []" in ran.stderr
    rows = json.loads(ran.stdout)
    assert {row["domain"] for row in rows} == set(DOMAINS)
    assert set(rows[0]) == set(domain_table.HEAD)


def test_a_list_without_details_says_the_same():
    assert domain_table.rows(read_domains(details=False)) == domain_table.rows(DOMAINS)


def test_a_users_own_domain_is_listed(domains, tmp_path, folder):
    (tmp_path / "conf" / "domain").mkdir(parents=True)
    (tmp_path / "conf" / "domain" / "mine.yaml").write_text(
        f"defaults: [/schema/domain/folder@_here_]\nname: mine\nmodality: oct\nroot: {folder}\nlicence: {'x' * 60}\n"
    )
    status, out, _ = domains("--config-dir", tmp_path / "conf")
    assert status == 0
    (line,) = [line for line in out.splitlines() if line.startswith("mine ")]
    assert line.endswith("present")
    assert "x..." in line
    named = ("exposure", "--domains", "mine", "--models", "tiny_medclip", "--json")
    (row,) = json.loads(domains(*named, "--config-dir", tmp_path / "conf")[1])
    assert (row["modality"], row["exposure"]) == ("oct", "ood")


@pytest.mark.parametrize("arguments", [("list", "--json"), ("exposure", "--json")])
def test_a_broken_file_is_told_and_hides_no_other(domains, tmp_path, arguments):
    (tmp_path / "conf" / "domain").mkdir(parents=True)
    (tmp_path / "conf" / "domain" / "mine.yaml").write_text("defaults: [/schema/domain/folder@_here_]\nmodalty: oct\n")
    status, out, err = domains(*arguments, "--config-dir", tmp_path / "conf")
    assert status == 1
    assert {row["domain"] for row in json.loads(out)} >= {"chexpert", "phantom_oct"}
    assert "mine.yaml" in err
    assert err.count("\n") == 1
    assert domains("show", "phantom_oct", "patients=20", "--config-dir", tmp_path / "conf")[0] == 0
    assert domains("show", "mine", "--config-dir", tmp_path / "conf")[0] == 2


def test_a_layout_is_that_of_the_settings(domains, miniature, tmp_path):
    (tmp_path / "CheXpert-v1.0").symlink_to(miniature / "CheXpert-v1.0-small")
    full = ("chexpert", f"root={tmp_path}", "settings.folder=CheXpert-v1.0")
    told = json.loads(domains("show", *full, "--json")[1])
    assert told["here"] == "present"
    assert "CheXpert-v1.0/train.csv" in told["layout"]


def test_a_sheet_says_what_is_asked(monkeypatch, tmp_path):
    written: list[str] = []
    draw = ImageDraw.ImageDraw.text

    def text(canvas, at, words, **more):
        written.append(words)
        draw(canvas, at, words, **more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    vqa = build_domain(dataclasses.replace(PHANTOM, patients=20), "vqa")
    listed = [dataclasses.replace(row, labels=(), listed=row.answer_type == "closed") for row in vqa.examples]
    draw_sheet(dataclasses.replace(vqa, examples=listed), tmp_path / "a.png")
    assert {text.partition(" (")[0] for text in written} >= {"open questions", "multiple choice questions"}
    drawn = build_domain(dataclasses.replace(PHANTOM, patients=20), "diagnosis")
    draw_sheet(dataclasses.replace(drawn, multi_label=True, name="several"), tmp_path / "b.png")
    assert [text for text in written if "diagnosis (multi-label)" in text]


def test_a_layout_is_present_partial_or_absent(miniature, tmp_path):
    domain = named_domain("chexpert", None, [f"root={miniature}"])
    assert isinstance(domain, schema.PublishedDomainConfig)
    assert domain_table.here(domain) == "present"
    (tmp_path / "CheXpert-v1.0-small").mkdir()
    (tmp_path / "CheXpert-v1.0-small" / "train.csv").touch()
    partial = dataclasses.replace(domain, root=str(tmp_path))
    assert domain_table.here(partial) == "partial"
    assert Counter(domain_table.layout(partial).values()) == {True: 1, False: 3}
    assert domain_table.here(dataclasses.replace(domain, root="/no/such")) == "absent"
    assert domain_table.here(PHANTOM) == "made"


# ------------------------------------------------------------------------------------------------------ one in words


def test_show_says_everything_of_a_gated_dataset_that_is_not_here(domains, monkeypatch, tmp_path):
    monkeypatch.setenv("VLMBENCH_DATA", str(tmp_path))
    status, out, _ = domains("show", "chexpert")
    assert status == 0
    for words in (
        "Stanford University Dataset Research Use Agreement",
        "arXiv 1901.07031",
        "https://stanfordmlgroup.github.io",
        "Register at the Stanford AIMI centre",
        f"absent in {tmp_path}/chexpert",
        "missing    CheXpert-v1.0-small/train.csv",
        "split=ours   the official split, with validation taken out of train",
        "(chosen)",
        "target=study (split=study): column 'No Finding', 1.0 = normal, * = diseased",
        "a photo of diseased xray",
    ):
        assert words in out, words


def test_show_counts_what_is_here_in_both_splits(domains, miniature):
    status, out, _ = domains("show", "chexpert", f"root={miniature}", "--json")
    assert status == 0
    told = json.loads(out)
    assert list(told["built"]) == ["split=ours", "split=study"]
    domain = named_domain("chexpert", None, [f"root={miniature}"])
    built = build_domain(domain, "diagnosis")
    assert told["built"]["split=ours"]["splits"] == built.counts()
    ages = told["built"]["split=ours"]["subgroups"]["age"]
    assert sum(ages["20-29"].values()) == sum(20 <= float(row.attributes["age"]) < 30 for row in built.examples)
    status, out, _ = domains("show", "chexpert", f"root={miniature}", "split=study")
    assert "split=study" in out
    assert "= diseased" in out
    assert "by sex" in out
    assert "the official split" in out


def test_show_tells_what_is_wrong_with_the_data_and_goes_on(domains, folder):
    table = pd.read_csv(folder / "labels.csv")
    table.loc[table["image"] == "9.png", "patient_id"] = "p0"
    table.to_csv(folder / "labels.csv", index=False)
    status, out, _ = domains("show", "folder", f"root={folder}", "name=mine", "modality=oct")
    assert status == 0
    assert "p0 in train, test" in out
    status, _, err = domains("show", "folder", f"root={folder}", "name=mine", "--sheet", folder / "a.png")
    assert status == 2
    assert "p0 in train, test" in err
    assert not (folder / "a.png").exists()


def test_show_says_what_was_set_aside(domains):
    status, out, _ = domains("show", "phantom_oct", "patients=40", "fraction=0.2", "--task", "diagnosis")
    assert status == 0
    assert "left out: fraction=0.2, fraction_seed=0: set aside from train" in out


@pytest.mark.parametrize("name", sorted(DOMAINS))
def test_every_domain_can_be_shown_without_its_data(name):
    told = facts(name, DOMAINS[name])
    assert json.loads(json.dumps(told)) == told
    assert text(told).startswith(f"{name}: ")


def test_a_mistake_is_told_in_one_line_with_the_nearest(domains, tmp_path):
    for arguments, words in [
        (("show", "chexprt"), "Did you mean 'chexpert'?"),
        (("shwo", "chexpert"), "Did you mean 'show'?"),
        (("show", "chexpert", "splt=study"), "key='splt' is not valid. Did you mean 'split'?"),
        (("show", "chexpert", "study"), "write key=value"),
        (("show", "phantom_oct", "fraction=x"), "fraction: Value 'x'"),
        (("show", "chexpert", "split=studi"), "Did you mean 'study'?"),
        (("show", "phantom_oct", "--task", "diagnosis", "--sheet", tmp_path / "a.jpg"), "ends in .png"),
        (("show", "phantom_mixture", "--task", "diagnosis"), "--task='diagnosis' is not valid"),
        (("show", "phantom_oct", "fraction=0"), "leaves nothing to train on"),
        (("audit", "folder"), "needs root=..."),
        (("audit", "phantom_oct", "--other", "patients=20"), "--against"),
        (("audit", "phantom_oct", "--against", "phantom_oct"), "is the same domain"),
        (("show", "phantom_oct", "--strict"), "--strict is an option of audit, not of show"),
        (("--domains", "chexpert"), "--domains is an option of exposure, not of list"),
        (("exposure", "--models", "clipp"), "Did you mean 'clip'?"),
        (("exposure", "--domains", "phantom_okt"), "Did you mean 'phantom_oct'?"),
    ]:
        status, _, err = domains(*arguments)
        assert status == 2, arguments
        assert words in err, arguments
        assert err.startswith("vlmbench: ")
        assert err.count("\n") == 1, arguments
    assert domains("show")[0] == 2
    assert domains("list", "chexpert")[0] == 2


def test_the_command_has_one_name_more(command):
    status, out, _ = command("__main__", "domains")
    assert status == 0
    assert "phantom_oct" in out


# -------------------------------------------------------------------------------------------------------- subgroups


def rows(attributes):
    return [Example(str(i), str(i), str(i), "train", attributes=some) for i, some in enumerate(attributes)]


def test_numbers_are_counted_in_bins_and_texts_by_value():
    base = build_domain(PHANTOM, "diagnosis")
    some = [{"age": float(age), "sex": "F" if age % 2 else "M"} for age in range(20, 90)] + [{}]
    found = subgroups(dataclasses.replace(base, examples=rows(some)))
    assert list(found["age"]) == ["20-29", "30-39", "40-49", "50-59", "60-69", "70-79", "80-89", "not known"]
    assert {count["train"] for count in found["age"].values()} == {10, 1}
    assert found["sex"]["F"] == {"train": 35, "val": 0, "test": 0}
    few = subgroups(dataclasses.replace(base, examples=rows([{"grade": float(i % 3)} for i in range(9)])))
    assert list(few["grade"]) == ["0", "1", "2"]
    small = subgroups(dataclasses.replace(base, examples=rows([{"dose": i / 100} for i in range(1, 40)])))
    assert sum(count["train"] for count in small["dose"].values()) == 39
    assert len(small["dose"]) <= 10
    assert small["dose"]["0.15 to 0.2"]["train"] == 5
    assert next(iter(small["dose"])) == "0 to 0.05"
    many = subgroups(dataclasses.replace(base, examples=rows([{"site": f"s{i}"} for i in range(40)])))
    assert len(many["site"]) == MOST + 1
    assert many["site"]["others"]["train"] == 40 - MOST


# ---------------------------------------------------------------------------------------------------- contact sheets


def test_a_sheet_has_a_row_a_label_and_repeats(tmp_path):
    domain = build_domain(dataclasses.replace(PHANTOM, target="multiclass", patients=40), "diagnosis")
    one, again, other = (
        draw_sheet(domain, tmp_path / f"{name}.png", seed=seed).read_bytes()
        for name, seed in [("a", 0), ("b", 0), ("c", 1)]
    )
    assert one == again
    assert one != other
    image = Image.open(tmp_path / "a.png")
    assert image.width > COLUMNS * TILE
    assert image.height > len(domain.label_names) * TILE
    assert np.asarray(image).std() > 20


@pytest.mark.parametrize("task", ["vqa", "pretrain"])
def test_questions_and_captions_have_sheets(tmp_path, task):
    domain = build_domain(PHANTOM, task)
    assert Image.open(draw_sheet(domain, tmp_path / "a.png")).size[0] > COLUMNS * TILE


def test_a_broken_image_is_a_tile_and_long_text_is_cut(tmp_path, folder):
    (folder / "3.png").write_bytes(b"no image")
    rows = pd.read_csv(folder / "labels.csv").assign(label=["w" * 900, "short words " * 90] * 5)
    rows.to_csv(folder / "labels.csv", index=False)
    config = named_domain("folder", None, [f"root={folder}", "name=mine", "modality=oct", "check_images=exists"])
    path = draw_sheet(build_domain(config, "diagnosis"), tmp_path / "below" / "sheet.png")
    assert Image.open(path).width == COLUMNS * (TILE + 8) + 8


def test_show_draws_a_miniature(domains, miniature, tmp_path):
    sheet = tmp_path / "sheet.png"
    status, out, _ = domains("show", "chexpert", f"root={miniature}", "--sheet", sheet, "target=findings")
    assert status == 0
    assert str(sheet) in out
    assert Image.open(sheet).height > 13 * TILE


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "source", "settings"),
    [("us_busi", "folder", []), ("derm_ham10000", "folder", []), ("vqa_rad", "vqa_jsonl", ["on_leak=report"])],
)
def test_real_sets_can_be_shown_and_drawn(domains, tmp_path, name, source, settings):
    root = real_set(name)
    sheet = tmp_path / "sheet.png"
    status, out, err = domains(
        "show", source, f"root={root}", f"name={name}", "modality=x", *settings, "--sheet", sheet
    )
    assert status == 0, err
    assert "examples" in out
    assert Image.open(sheet).width > COLUMNS * TILE


# ------------------------------------------------------------------------------------------------ audits and exposure


def test_an_audit_is_told_in_words_or_as_json(domains):
    status, out, _ = domains("audit", "phantom_oct", "patients=12", "--strict")
    assert status == 0
    assert "train and test: nothing in common" in out
    status, out, _ = domains("audit", "phantom_oct", "patients=12", "corruption=noise", "--json")
    assert status == 0
    assert json.loads(out)["train-test"]["pixels"] == 0


def test_strict_fails_where_test_shares_anything(domains, folder):
    own = ("folder", f"root={folder}", "name=mine", "modality=oct")
    assert domains("audit", *own, "--strict")[0] == 0
    Image.open(folder / "0.png").save(folder / "8.png")
    status, out, _ = domains("audit", *own, "--strict")
    assert status == 1
    assert "0.png" in out
    assert "8.png" in out
    assert domains("audit", *own)[0] == 0
    # In train alone, a copy is no leak.
    Image.open(folder / "9.png").save(folder / "8.png")
    Image.open(folder / "0.png").save(folder / "1.png")
    assert domains("audit", *own, "--strict")[0] == 0


def test_two_domains_are_compared(domains, folder):
    own = ("folder", f"root={folder}", "name=mine", "modality=oct")
    theirs = (f"root={folder}", "name=theirs", "modality=oct")
    status, out, _ = domains("audit", *own, "--against", "folder", "--other", *theirs, "--strict")
    assert status == 0, "what lies in the same split of both is no leak"
    assert "mine test and theirs test" in out
    table = pd.read_csv(folder / "labels.csv")
    table["split"] = table["split"].map({"train": "test", "test": "train", "val": "val"})
    table.to_csv(folder / "turned.csv", index=False)
    other = ("--against", "folder", "--other", *own[1:], "table=turned.csv")
    status, out, _ = domains("audit", *own, *other, "--strict", "--json")
    assert status == 1
    assert json.loads(out)["train-test"]["pixels"] == 4


def test_exposure_is_told_of_the_models_and_domains_named(domains):
    named = ("--models", "tiny_clip,tiny_medclip", "--domains", "phantom_oct,phantom_fundus")
    status, out, _ = domains("exposure", *named, "--json")
    assert status == 0
    found = {(row["model"], row["domain"]): row["exposure"] for row in json.loads(out)}
    assert found == {
        ("tiny_clip", "phantom_oct"): "ood",
        ("tiny_clip", "phantom_fundus"): "ood",
        ("tiny_medclip", "phantom_oct"): "ood",
        ("tiny_medclip", "phantom_fundus"): "id",
    }
    status, out, _ = domains("exposure", *named)
    assert status == 0
    assert "tiny_medclip" in out
    assert domains("exposure", "--profile", "study")[0] == 0
    assert domains("exposure", "--profile", "studi")[0] == 2


def test_a_reader_that_has_read_enough_ends_it_quietly():
    command = f"{sys.executable} -m vlmbench.domains | head -1"
    ran = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    assert ran.stdout.startswith("domain ")
    assert Path(conf_dir()).is_dir()
