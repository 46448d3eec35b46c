"""Tokenizers of CLIP's and of Gemma's kind, trained on the corpus."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from releases.common import CORPUS, write_json

SOT, EOT = "<|startoftext|>", "<|endoftext|>"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def write_clip_tokenizer(folder: Path) -> int:
    """Write `vocab.json`, `merges.txt`, `tokenizer.json` and their configuration; returns the vocabulary's size.

    Ids go as in the original: bytes, bytes that end a word, merges, start and end of text.
    """
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), "removed", invert=True)
    bpe.normalizer = normalizers.Lowercase()
    bpe.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=220, end_of_word_suffix="</w>", show_progress=False))
    merges = _merges(bpe)
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    units = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(256 - len(printable))]
    pieces = [*units, *(f"{unit}</w>" for unit in units), *("".join(pair) for pair in merges), SOT, EOT]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "vocab.json", vocab)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    full = Tokenizer(models.BPE(vocab, merges, unk_token=EOT, end_of_word_suffix="</w>", continuing_subword_prefix=""))
    full.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    special_too = Regex(rf"<\|startoftext\|>|<\|endoftext\|>|{WORDS}")
    full.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(special_too, "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    full.post_processor = processors.RobertaProcessing(
        (EOT, vocab[EOT]), (SOT, vocab[SOT]), trim_offsets=False, add_prefix_space=False
    )
    full.decoder = decoders.ByteLevel()
    full.add_special_tokens([AddedToken(SOT, normalized=True), AddedToken(EOT, normalized=False)])
    full.save(str(folder / "tokenizer.json"))
    special = {"bos_token": SOT, "eos_token": EOT, "pad_token": EOT, "unk_token": EOT}
    write_json(folder / "special_tokens_map.json", special)
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, "errors": "replace"}
    write_json(folder / "tokenizer_config.json", {**special, **settings, "add_prefix_space": False})
    return len(vocab)


def write_gemma_tokenizer(folder: Path) -> int:
    """Write SigLIP 2's `tokenizer.json` and its configuration; returns the vocabulary's size.

    Byte-level fallback, no start of text, one end of text, padded to 64. `do_lower_case` is in the configuration, and
    nothing in the file does it.
    """
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.Replace(" ", "▁")
    bpe.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=160, show_progress=False))
    merges = _merges(bpe)
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    # The alphabet goes before what is merged from it.
    learned = sorted(bpe.get_vocab(), key=bpe.get_vocab().__getitem__)
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *learned]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    full = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    full.normalizer = normalizers.Replace(" ", "▁")
    full.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    full.post_processor = processors.TemplateProcessing("$A <eos>", "$A <eos> $B <eos>", [("<eos>", 1)])
    full.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    full.add_special_tokens([AddedToken(name, normalized=False) for name in special])
    full.enable_padding(length=64, pad_id=0, pad_token="<pad>")
    folder.mkdir(parents=True, exist_ok=True)
    full.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    write_json(folder / "special_tokens_map.json", names)
    flags = {"add_bos_token": False, "add_eos_token": True, "do_lower_case": True, "padding_side": "right"}
    named = {"tokenizer_class": "GemmaTokenizer", "processor_class": "SiglipProcessor"}
    write_json(
        folder / "tokenizer_config.json",
        {**names, **flags, **named, "model_input_names": ["input_ids"], "model_max_length": int(1e30)},
    )
    return len(vocab)


def _merges(bpe: Tokenizer) -> list[tuple[str, str]]:
    rows = json.loads(bpe.to_str())["model"]["merges"]
    return [tuple(row.split(" ") if isinstance(row, str) else row) for row in rows]
