"""What the sources for a user's own data share: from rows read of a table to checked examples."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from vlmbench.domains.base import DomainError, Example, ImageError, StoredImages
from vlmbench.domains.hashing import hash_images
from vlmbench.domains.parallel import over_images
from vlmbench.domains.splits import OnLeak, check_coverage, complete_splits, make_splits

log = logging.getLogger(__name__)

OnBadImage = Literal["stop", "leave_out"]
CheckImages = Literal["decode", "exists"]


def find_table(root: str | Path, table: str) -> tuple[Path, Path]:
    """Return the root folder and the table below it.

    Raises:
        DomainError: Either is missing; the message lists what the root holds instead.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise DomainError(f"{folder}: no such folder; set the domain's root to the folder that holds {table}")
    path = folder / table
    if not path.is_file():
        there = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
        listed = ", ".join(there[:10]) + (", ..." if len(there) > 10 else "")
        raise DomainError(f"{path}: no such file; the folder holds {listed or 'nothing'}")
    return folder, path


def read_text(path: Path) -> str:
    """Return a table's text, without a byte order mark.

    Raises:
        DomainError: The file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DomainError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise DomainError(f"{path}: cannot be read: {error.strerror}") from error


def image_key(text: str) -> str:
    """Return an image column's entry as a key: separators of Windows become slashes, a leading './' goes."""
    return text.strip().replace("\\", "/").removeprefix("./")


def check_choice(name: str, value: str, admissible: Sequence[str]) -> None:
    """Check an argument that is one of a few words.

    Raises:
        DomainError: It is none of them.
    """
    if value not in admissible:
        raise DomainError(f"{name}={value!r} is not admissible; choose one of {', '.join(admissible)}")


def check_unique(ids: Sequence[str], path: Path, hint: str) -> None:
    """Check that ids are unique.

    Raises:
        DomainError: With the number of repeated ids, and examples.
    """
    repeated = [f"{name!r} ({count} times)" for name, count in Counter(ids).items() if count > 1]
    if repeated:
        more = ", ..." if len(repeated) > 5 else ""
        raise DomainError(
            f"{path}: {len(repeated):,} ids occur more than once: {', '.join(repeated[:5])}{more}; {hint}"
        )


def assemble(
    rows: Sequence[dict[str, Any]],
    strata: Sequence[Hashable],
    raw_splits: Sequence[str] | None,
    images: StoredImages,
    path: Path,
    *,
    split_fractions: Sequence[float],
    split_seed: int,
    on_leak: OnLeak,
    on_bad_image: OnBadImage,
    check_images: CheckImages,
    train_needs: Sequence[Hashable] = (),
) -> tuple[list[Example], list[dict[str, Any]]]:
    """Give every row its split, leave out rows whose image is bad, and return the examples and what was left out.

    Splits come first: an image that is mended later changes its own rows alone and not everybody's split.

    Args:
        rows: The arguments of `Example`, without `split`.
        strata: Per row, what splits are stratified by.
        raw_splits: Per row, the given split; None to make them.
        images: Where the images are.
        path: The table or folder, for messages.
        split_fractions: As `make_splits` takes them.
        split_seed: As `make_splits` takes it.
        on_leak: As `complete_splits` takes it.
        on_bad_image: Whether a missing or broken image ends in an error, or leaves its rows out.
        check_images: Whether images are decoded, or only looked for.
        train_needs: Strata that the train split must have.

    Raises:
        DomainError: Bad images with `stop`, or splits that are not admissible.
    """
    check_choice("on_bad_image", on_bad_image, ("stop", "leave_out"))
    check_choice("check_images", check_images, ("decode", "exists"))
    check_choice("on_leak", on_leak, ("raise", "report"))
    groups = [row["group"] for row in rows]
    try:
        if raw_splits is None:
            splits = make_splits(groups, strata, fractions=split_fractions, seed=split_seed)
        else:
            splits = complete_splits(
                raw_splits, groups, strata, fractions=split_fractions, seed=split_seed, on_leak=on_leak
            )
        check_coverage(splits, strata, train_needs)
    except DomainError as error:
        raise DomainError(f"{path}: {error}") from error
    keys = list(dict.fromkeys(row["image"] for row in rows))
    bad = _bad_images(images, keys, check_images)
    if bad and on_bad_image == "stop":
        first = "; ".join(f"{key}: {reason}" for key, reason in list(bad.items())[:5])
        more = f"; and {len(bad) - 5:,} more" if len(bad) > 5 else ""
        raise DomainError(
            f"{path}: {len(bad):,} of {len(keys):,} images cannot be read: {first}{more}. Paths are taken from "
            f"{images.where}. Mend them, or set on_bad_image=leave_out to go on without"
        )
    kept = [i for i, row in enumerate(rows) if row["image"] not in bad]
    if bad:
        log.warning("%s: %d images left out; %d of %d rows remain.", path, len(bad), len(kept), len(rows))
        try:
            check_coverage([splits[i] for i in kept], [strata[i] for i in kept], train_needs)
        except DomainError as error:
            raise DomainError(f"{path}: without the {len(bad):,} images left out, {error}") from error
    lost = Counter(row["image"] for row in rows if row["image"] in bad)
    left_out = [{"image": key, "reason": reason, "examples": lost[key]} for key, reason in bad.items()]
    return [Example(split=splits[i], **rows[i]) for i in kept], left_out


def fingerprint(
    path: Path | None, images: StoredImages, examples: Sequence[Example], label_names: Sequence[str] = ()
) -> str:
    """Return the hex SHA-256 of what a domain of files is made of.

    It covers the table's bytes, what the arguments made of them (every field of every example that is not left out,
    and the order of the classes), and for every image its key and its size in bytes. It does not cover the pixels,
    which would mean to read every image at every start: a change that keeps the size goes unseen. Nor does it cover
    prompts, or where the folder lies.

    Args:
        path: The table; None where the examples hold all that is read of it.
        images: Where the images are.
        examples: All of the domain's.
        label_names: The classes, in the order of the scores.
    """
    digest = hashlib.sha256(hashlib.sha256(path.read_bytes()).digest() if path is not None else b"")
    # Examples had no `listed` when the first fingerprints were taken: where it is not set, these stay as they were.
    names = [field.name for field in fields(Example) if field.name != "listed"]
    parts: Iterable[Any] = chain(
        [list(label_names)],
        ([getattr(example, name) for name in names] + ["listed"] * example.listed for example in examples),
        ([key, images.size(key)] for key in sorted({example.image for example in examples})),
    )
    encode = json.JSONEncoder(sort_keys=True).encode  # once: json.dumps makes one at every call
    for part in parts:
        digest.update(encode(part).encode())
    return digest.hexdigest()


def _bad_images(images: StoredImages, keys: Sequence[str], check: CheckImages) -> dict[str, str]:
    if check == "decode":  # and remembered, for the audit as well: a second start reads no image
        return hash_images(images, keys).unreadable

    def fault(key: str) -> str:
        try:
            return "" if images.size(key) else "the file is empty"
        except ImageError as error:
            return error.reason

    faults = over_images(fault, keys, "Looking for images")
    return {key: reason for key, reason in zip(keys, faults, strict=True) if reason}
