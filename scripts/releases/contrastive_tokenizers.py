"""Tokenizers of CLIP's and of Gemma's kind, trained on the corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from releases.common import CORPUS, write_json

SOT, EOT = "<|startoftext|>", "<|endoftext|>"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def write_clip_tokenizer(folder: Path) -> int:
    """Write `vocab.json`, `merges.txt`, `tokenizer.json` and their configuration; returns the vocabulary's size.

    Ids go as in the original: bytes, bytes that end a word, merges, start and end of text.
    """
    words = pre_tokenizers.Split(Regex(WORDS), "removed", invert=True)
    split = [word for line in CORPUS for word, _ in words.pre_tokenize_str(line.lower())]
    merges = learn_merges([[*word[:-1], f"{word[-1]}</w>"] for word in split], 150)
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
    lines = [list(line.replace(" ", "▁")) for line in CORPUS]
    merges = learn_merges(lines, 110)
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    letters = sorted({letter for line in lines for letter in line})
    learned = dict.fromkeys([*letters, *("".join(pair) for pair in merges)])
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


def learn_merges(words: Sequence[Sequence[str]], count: int) -> list[tuple[str, str]]:
    """Return the merges of a byte-pair encoding (Sennrich et al., 2016, arXiv 1508.07909), most frequent pair first.

    Ties go to the alphabet. The trainers of `tokenizers` leave them to a hash table, which differs from run to run.
    """
    split = [list(word) for word in words]
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs = Counter(pair for word in split for pair in pairwise(word))
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word in split:
            index = 0
            while index < len(word) - 1:
                if (word[index], word[index + 1]) == best:
                    word[index : index + 2] = ["".join(best)]
                index += 1
    return merges
