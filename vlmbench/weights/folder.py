"""What a folder of a checkpoint lacks, and which of its files are not what their names say."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from vlmbench.weights.source import WEIGHTS, Source, matches, required

_HEADER_LIMIT = 100 * 2**20  # bytes; safetensors itself refuses a longer header
_LFS = b"version https://git-lfs"


def files_of(folder: Path, source: Source) -> list[str]:
    """Return the needed files of a folder that are there, relative with forward slashes, sorted.

    What a local folder holds counts wherever a loader may read it: all weights, and what describes them.
    """
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    if source.kind == "hub" or source.files:
        return sorted(name for name in names if source.wants(name))
    kept = [name for name in names if not any(part.startswith(".") for part in PurePosixPath(name).parts)]
    return sorted(name for name in kept if source.wants(PurePosixPath(name).name) or _is_weights(name))


def lacking(folder: Path, source: Source) -> list[str]:
    """Return what a checkpoint in `folder` lacks: patterns without a file, shards of an index, or any weights."""
    there = files_of(folder, source)
    gone = [p for p in source.files if required(p) and not any(matches(name, p) for name in there)]
    for name in there:
        if name.endswith(".index.json"):
            try:
                index = json.loads((folder / name).read_text(encoding="utf-8"))
                shards = set(index.get("weight_map", {}).values())
            except (ValueError, AttributeError):
                return [f"a readable {name}"]
            parent = PurePosixPath(name).parent
            wanted = {str(parent / str(shard)) for shard in shards}
            # The index of another format, of which nothing was taken, asks for nothing.
            other = not any(source.wants(shard) for shard in wanted) if source.kind == "hub" else False
            if other or (wanted.isdisjoint(there) and any(_is_weights(name) for name in there)):
                continue
            gone += sorted(shard for shard in wanted if not (folder / shard).is_file())
    if not source.files and not gone and not any(_is_weights(name) for name in there):
        gone.append("model.safetensors")
    return gone


def damage(path: Path) -> str:
    """Return what is wrong with a file of a checkpoint; empty where nothing is, as its first bytes and size tell.

    A safetensors file is 8 bytes with the length of its header, the header, and tensors up to the last of the offsets
    in the header (the format's own description, safetensors' README).
    """
    size = path.stat().st_size
    with path.open("rb") as handle:
        head = handle.read(64)
        if head.startswith(_LFS):
            return f"is the {size} bytes of a Git LFS pointer, not the file itself (`git lfs pull` brings it)"
        if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
            return "is an HTML page: a log-in or error page was saved in its place"
        if path.suffix != ".safetensors":
            return "is empty" if path.suffix in WEIGHTS and not size else ""
        if head.startswith(b"PK\x03\x04") or head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            return "is a pickle (torch.save) with the name of a safetensors file; nothing is unpickled here"
        length = int.from_bytes(head[:8], "little")
        if size < 8 or length > min(_HEADER_LIMIT, size - 8):
            return f"is truncated or no safetensors file ({size:,} bytes)"
        handle.seek(8)
        try:
            header = json.loads(handle.read(length))
            ends = [value["data_offsets"][1] for key, value in header.items() if key != "__metadata__"]
            expected = 8 + length + max(ends, default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            return "is no safetensors file: its header cannot be read"
    if size < expected:
        return f"is truncated: {size:,} of {expected:,} bytes"
    return f"is {size - expected:,} bytes longer than its header says" if size > expected else ""


def _is_weights(name: str) -> bool:
    return PurePosixPath(name).suffix in WEIGHTS
