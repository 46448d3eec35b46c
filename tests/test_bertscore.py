"""BERTScore by a tiny random encoder in the hub's format, made here, and what the command leaves beside records."""

import sys

import numpy as np
import pytest
from synthetic_study import FINDINGS, vqa_frame, write_cell

from vlmbench import bertscore
from vlmbench.config.faults import ConfigError
from vlmbench.errors import UserError
from vlmbench.records.bertscores import bertscore_identity, read_bertscores
from vlmbench.records.store import read_predictions, write_predictions

WORDS = ("left", "right", "lung", "in", "of", "upper", "lobe", "normal", "no", "yes", *FINDINGS)
PAIRS = [
    ("left lung mass in upper lobe", "right lung"),
    ("no", "normal"),
    ("cyst", "cyst"),
    ("", "lung"),
    ("yes right", "upper lobe mass in right lung of"),
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=32, **sizes)).save_pretrained(folder)
    return folder


def by_hand(scorer, prediction, answer):
    """The definition, for one pair: every token but the two special ones, matched to any of the other text."""
    import torch

    embedded = []
    for text in (prediction, answer):
        with torch.no_grad():
            batch = scorer.tokenizer(text, return_tensors="pt")
            hidden = scorer.model(**batch, output_hidden_states=True).hidden_states[scorer.num_layers][0].numpy()
        embedded.append(hidden / np.linalg.norm(hidden, axis=1, keepdims=True))
    similarity = embedded[0] @ embedded[1].T
    precision, recall = similarity.max(axis=1)[1:-1].mean(), similarity.max(axis=0)[1:-1].mean()
    return precision, recall, 2 * precision * recall / (precision + recall)


def test_scores_equal_the_definition_whatever_shares_their_batch(encoder):
    from vlmbench.backbones.bertscore import Scorer

    scorer = Scorer(str(encoder), num_layers=1, batch_size=3)
    scores = scorer.score(*zip(*PAIRS, strict=True)).numpy()
    assert scores[0] == pytest.approx(by_hand(scorer, "left lung mass in upper lobe", "right lung"), abs=1e-5)
    assert scores[4] == pytest.approx(by_hand(scorer, "yes right", "upper lobe mass in right lung of"), abs=1e-5)
    assert scores[2] == pytest.approx([1, 1, 1], abs=1e-5)
    assert scores[3].tolist() == [0, 0, 0]
    assert scores[1, 2] < 0.999
    deeper = Scorer(str(encoder)).score(*zip(*PAIRS, strict=True)).numpy()
    assert abs(deeper[0, 2] - scores[0, 2]) > 1e-4


def run(monkeypatch, capsys, *overrides):
    monkeypatch.setattr(sys, "argv", ["vlmbench.bertscore", *overrides])
    bertscore.main()
    return capsys.readouterr().out


def test_the_command_scores_open_answers_once(encoder, tmp_path, monkeypatch, capsys):
    frame = vqa_frame(20, 0.6, noise=0)
    same = frame["prediction"] == frame["answer"]
    frame.loc[same & (frame["answer_type"] == "open"), "prediction"] += ". "  # normalised before it is scored
    folder = write_cell(tmp_path / "runs", frame, "tiny_llava", "phantom_fundus", task="vqa", resamples=10).parent
    asked = [f"records={tmp_path / 'runs'}", f"encoder={encoder}"]
    assert "scored: 1 cells; 0 were before" in run(monkeypatch, capsys, *asked)
    table, frame = read_bertscores(folder), read_predictions(folder)
    still_open = frame[frame["answer_type"] == "open"]
    assert table["example_id"].tolist() == still_open["example_id"].tolist()
    right = same[frame["answer_type"] == "open"].to_numpy()
    assert (table["f1"].to_numpy()[right] > 0.9999).all()
    assert (table["f1"].to_numpy()[~right] < 0.9999).all()
    assert "scored: 0 cells; 1 were before" in run(monkeypatch, capsys, *asked)
    with pytest.raises(ConfigError, match=r"1 cells, .* hold scores of another model or layer"):
        run(monkeypatch, capsys, *asked, "num_layers=1")
    write_predictions(folder, frame.assign(prediction="other"))
    assert bertscore_identity(folder) is None  # of other predictions


def test_mistakes_are_told_before_anything_is_scored(encoder, tmp_path, monkeypatch, capsys):
    with pytest.raises(ConfigError, match="is no folder, and no model in the hub's cache"):
        run(monkeypatch, capsys, "encoder=no/such")
    with pytest.raises(ConfigError, match=r"lacks config\.json or safetensors"):
        run(monkeypatch, capsys, f"encoder={tmp_path}")
    write_cell(tmp_path, vqa_frame(4, 1, noise=0), "tiny_llava", "phantom_fundus", task="vqa", resamples=10)
    with pytest.raises(UserError, match=r"has 2\. Take at most these"):
        run(monkeypatch, capsys, f"records={tmp_path}", f"encoder={encoder}", "num_layers=9")
