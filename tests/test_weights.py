"""Where checkpoints come from: what counts as present, what is told of what is not, the lock file, and archives."""

import errno
import hashlib
import io
import json
import os
import pickle
import shutil
import stat
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from hub_server import Hub
from safetensors.numpy import load_file, save_file

from vlmbench.weights import address, download, hub, locate, lock
from vlmbench.weights.fetch import fetch
from vlmbench.weights.folder import damage, lacking
from vlmbench.weights.hashes import sha256_of
from vlmbench.weights.locate import MAIN, content_digest, locate_all, weights_digest
from vlmbench.weights.lock import Lock, LockError, entry_of, read_lock, write_entry
from vlmbench.weights.progress import TransferProgress
from vlmbench.weights.source import ASSETS, Source, WeightsUnavailableError

TINY = ASSETS / "tiny_clip"


@pytest.fixture
def place(monkeypatch, tmp_path):
    """Caches of this test alone, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("VLMBENCH_CACHE", str(tmp_path / "vlmbench"))
    return tmp_path


@pytest.fixture
def server(monkeypatch, place):
    """The imitation of the hub, reachable in this process."""
    found = Hub()
    running = found.serve()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", found.address)
    template = found.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", found.address, raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield found
    running.shutdown()


def snapshot(place, repo_id="owner/name", commit="0" * 40, source=TINY):
    """Put a checkpoint into the cache as huggingface_hub does."""
    home = place / "hub" / f"models--{repo_id.replace('/', '--')}"
    folder = home / "snapshots" / commit
    folder.mkdir(parents=True)
    (home / "blobs").mkdir(exist_ok=True)
    (home / "refs").mkdir(exist_ok=True)
    (home / "refs" / "main").write_text(commit)
    for path in source.iterdir():
        blob = home / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, blob)
        (folder / path.name).symlink_to(os.path.relpath(blob, folder))
    return folder


def sharded(folder):
    """Turn a checkpoint of one file into two shards and their index."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index: dict[str, str] = {}
    for number, names in enumerate([sorted(state)[::2], sorted(state)[1::2]], start=1):
        shard = f"model-{number:05}-of-00002.safetensors"
        save_file({name: state[name] for name in names}, folder / shard)
        index |= dict.fromkeys(names, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


# ------------------------------------------------------------------------------------------------ what is present


def test_a_cached_repository_is_a_folder_and_is_named_by_its_commit(place):
    folder = snapshot(place)
    source = Source("owner/name")
    assert locate.locate(source) == str(folder)
    assert content_digest(source, str(folder)) == f"owner/name@{'0' * 40}"
    assert locate.locate(Source("owner/name", revision="0" * 40)) == str(folder)


@pytest.mark.parametrize("gone", ["model.safetensors", "model-00002-of-00002.safetensors"])
def test_half_a_download_is_not_a_checkpoint(place, gone):
    checkpoint = place / "checkpoint"
    shutil.copytree(TINY, checkpoint)
    if gone != "model.safetensors":
        sharded(checkpoint)
    folder = snapshot(place, source=checkpoint)
    assert locate.locate(Source("owner/name")) == str(folder)
    # What an interrupted download leaves: the blob under another name, the link to nothing or not there.
    blob = (folder / gone).resolve()
    blob.rename(blob.with_name(blob.name + ".1a2b3c4d.incomplete"))
    with pytest.raises(WeightsUnavailableError) as told:
        locate.locate(Source("owner/name", download_gib=3))
    assert f"it lacks {gone}" in str(told.value)
    assert "owner/name (3 GiB)" in str(told.value)
    assert "HF_HUB_OFFLINE is set" in str(told.value)
    assert "\n" not in str(told.value)


def test_the_index_of_a_format_that_was_not_taken_asks_for_nothing(place):
    checkpoint = place / "checkpoint"
    shutil.copytree(TINY, checkpoint)
    index = {"weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}
    (checkpoint / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert lacking(checkpoint, Source(str(checkpoint))) == []
    assert lacking(snapshot(place, source=checkpoint), Source("owner/name")) == []


def test_files_that_are_asked_for_must_be_there(place):
    folder = snapshot(place)
    assert lacking(folder, Source("owner/name", files=("config.json", "tokenizer*"))) == []
    assert lacking(folder, Source("owner/name", files=("config.json", "*.pth"))) == ["*.pth"]
    assert Source("o/n").wants("model-00001-of-00002.safetensors")
    for other in ("pytorch_model.bin", "onnx/model.json", "flax_model.msgpack", "README.md", "tf_model.h5"):
        assert not Source("o/n").wants(other)
    assert Source("o/n", files=("llm/*",)).wants("llm/model.safetensors")
    assert not Source("o/n", files=("*.json",)).wants("onnx/config.json")
    # A pattern such as *.txt asks for what there is of it.
    assert lacking(folder, Source("owner/name", files=("*.json", "*.txt", "model.safetensors"))) == []


def test_a_local_folder_may_hold_the_model_in_another_format(place):
    shutil.copytree(TINY, place / "converted")
    release = Source(str(place / "converted"), files=("*.json", "pytorch_model.bin"))
    assert lacking(place / "converted", release) == []
    assert content_digest(release, release.text) == content_digest(Source(release.text), release.text)
    (place / "converted" / "model.safetensors").unlink()
    assert lacking(place / "converted", release) == ["model.safetensors"]
    assert lacking(place / "converted", Source(release.text, files=("*.json", "vocab.txt"))) == []


def test_an_incomplete_folder_is_told_apart_from_a_missing_download(train, tmp_path):
    shutil.copytree(TINY, tmp_path / "half", ignore=shutil.ignore_patterns("*.safetensors"))
    ran = train("finetune=zero_shot", f"model.source={tmp_path / 'half'}")
    assert ran.status == 2
    assert f"The checkpoint in {tmp_path / 'half'} is incomplete: it lacks model.safetensors" in ran.err
    assert "hf download" not in ran.err
    assert "Traceback" not in ran.err


def test_a_loader_that_misses_a_file_names_the_folder(train, tmp_path):
    shutil.copytree(TINY, tmp_path / "half", ignore=shutil.ignore_patterns("processor_config.json"))
    ran = train("finetune=zero_shot", f"model.source={tmp_path / 'half'}")
    assert ran.status == 1
    assert f"The checkpoint in {tmp_path / 'half'} cannot be loaded" in ran.record["error"]["message"]


# ----------------------------------------------------------------------------------- files that are not what they say


def pickled():
    return pickle.dumps({"weight": [1.0]}, protocol=2)


def zipped():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("model/data.pkl", pickled())
    return out.getvalue()


WHOLE = (TINY / "model.safetensors").read_bytes()
FAULTS = {
    "truncated": (WHOLE[:-1000], f"is truncated: {len(WHOLE) - 1000:,} of {len(WHOLE):,} bytes"),
    "no header": (WHOLE[:5000], "is truncated or no safetensors file (5,000 bytes)"),
    "too long": (WHOLE + b"more", "is 4 bytes longer than its header says"),
    "pickle": (pickled(), "is a pickle (torch.save)"),
    "zip": (zipped(), "is a pickle (torch.save)"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "Git LFS pointer"),
    "page": (b"\n<!DOCTYPE html><html><body>Log in</body></html>", "is an HTML page"),
    "not json": (b"\x10" + bytes(7) + b"x" * 16, "its header cannot be read"),
    "empty": (b"", "is truncated or no safetensors file (0 bytes)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_is_not_what_its_name_says_is_named(place, fault):
    folder = snapshot(place)
    (folder / "model.safetensors").resolve().write_bytes(FAULTS[fault][0])
    with pytest.raises(WeightsUnavailableError) as told:
        locate.locate(Source("owner/name"))
    message = str(told.value)
    assert str(folder / "model.safetensors") in message
    assert FAULTS[fault][1] in message
    assert "vlmbench.fetch" in message
    assert "\n" not in message


def test_older_formats_are_looked_at_too(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "Git LFS pointer" in damage(tmp_path / "pytorch_model.bin")
    (tmp_path / "tokenizer.model").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "Git LFS pointer" in damage(tmp_path / "tokenizer.model")
    (tmp_path / "pytorch_model.bin").write_bytes(zipped())
    assert damage(tmp_path / "pytorch_model.bin") == ""


# ------------------------------------------------------------------------------------------------ names of contents


def test_the_digests_of_shipped_models_are_those_of_older_records():
    expected = "sha256:" + DIGEST
    assert content_digest(Source("package:tiny_clip"), str(TINY)) == expected


DIGEST = hashlib.sha256(
    b"".join(path.name.encode() + hashlib.sha256(path.read_bytes()).digest() for path in sorted(TINY.iterdir()))
).hexdigest()


def test_a_companion_is_part_of_the_name(place):
    for name in ("main", "tokenizer"):
        shutil.copytree(TINY, place / name)
    sources = {MAIN: Source(str(place / "main")), "tokenizer": Source(str(place / "tokenizer"), files=("tokenizer*",))}
    folders = locate_all(sources, Lock(Path()))
    assert folders["tokenizer"] == str(place / "tokenizer")
    name = weights_digest(sources, folders)
    assert name.startswith(content_digest(sources[MAIN], folders[MAIN]))
    (place / "tokenizer" / "config.json").write_text("{}")
    assert weights_digest(sources, folders) == name  # not one of its files
    (place / "tokenizer" / "tokenizer_config.json").write_text("{}")
    assert weights_digest(sources, folders) != name


def test_a_large_file_is_hashed_once(place, monkeypatch):
    path = place / "model.safetensors"
    path.write_bytes(WHOLE)
    os.utime(path, (1, 1))
    first = sha256_of(path)
    assert first == hashlib.sha256(WHOLE).hexdigest()
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", lambda *_: pytest.fail("read again"))
        assert sha256_of(path) == first
    path.write_bytes(WHOLE[:-1] + b"x")
    os.utime(path, (2, 2))
    assert sha256_of(path) != first


# -------------------------------------------------------------------------------------------------------- the lock


def test_the_lock_names_the_commit_and_every_file(place):
    old, new = snapshot(place, commit="a" * 40), snapshot(place, commit="b" * 40)
    source, path = Source("owner/name"), place / "vlmbench.lock"
    write_entry(path, source, entry_of(source, old))
    entry = json.loads(path.read_text())["sources"]["owner/name"]
    assert (entry["kind"], entry["revision"], entry["commit"]) == ("hub", "main", "a" * 40)
    assert entry["files"]["model.safetensors"] == {"size": len(WHOLE), "sha256": hashlib.sha256(WHOLE).hexdigest()}
    assert locate.locate(source) == str(new)  # what refs/main says
    assert locate.locate(source, read_lock(path)) == str(old)


def test_a_revision_that_contradicts_the_lock_is_one_line(place):
    source, path = Source("owner/name"), place / "vlmbench.lock"
    write_entry(path, source, entry_of(source, snapshot(place)))
    locate.locate(Source("owner/name", revision="main"), read_lock(path))
    locate.locate(Source("owner/name", revision="0" * 40), read_lock(path))
    with pytest.raises(LockError, match=r"model.revision=v2 contradicts .*vlmbench.lock.*update=true") as told:
        locate.locate(Source("owner/name", revision="v2"), read_lock(path))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("change", ["another byte", "another size", "gone"])
def test_a_file_that_changed_since_it_was_locked_is_named(place, change):
    folder, source, path = snapshot(place), Source("owner/name"), place / "vlmbench.lock"
    write_entry(path, source, entry_of(source, folder))
    blob = (folder / "tokenizer.json").resolve()
    text = blob.read_text()
    if change == "gone":
        blob.unlink()
    else:
        blob.write_text(text.replace("1", "2", 1) if change == "another byte" else text + " ")
    with pytest.raises((LockError, WeightsUnavailableError)) as told:
        locate.locate(source, read_lock(path))
    assert "tokenizer.json" in str(told.value)
    assert "vlmbench.fetch" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_locked_local_folder_that_changed_fails_the_cell(train, tmp_path):
    shutil.copytree(TINY, tmp_path / "own")
    source = Source(str(tmp_path / "own"))
    write_entry(tmp_path / "study.lock", source, entry_of(source, tmp_path / "own"))
    settings = ["finetune=zero_shot", f"model.source={tmp_path / 'own'}", f"lock={tmp_path / 'study.lock'}"]
    assert train(*settings).status == 0
    (tmp_path / "own" / "tokenizer_config.json").write_text("{}")
    ran = train(*settings)
    assert ran.status == 2
    assert "tokenizer_config.json has changed" in ran.err


def test_entries_of_others_stay_and_files_of_one_commit_add_up(place):
    folder, path = snapshot(place), place / "vlmbench.lock"
    for source in (Source("owner/name", files=("config.json",)), Source("owner/name", files=("tokenizer*",))):
        write_entry(path, source, entry_of(source, folder))
    other = Source(str(TINY))
    write_entry(path, other, entry_of(other, TINY))
    sources = read_lock(path).sources
    assert set(sources) == {"owner/name", str(TINY)}
    assert set(sources["owner/name"]["files"]) == {"config.json", "tokenizer.json", "tokenizer_config.json"}


def test_a_lock_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "vlmbench.lock").write_text("{")
    with pytest.raises(LockError, match="cannot be read as a lock file"):
        read_lock(tmp_path / "vlmbench.lock")
    (tmp_path / "vlmbench.lock").write_text('{"version": 9, "sources": {}}')
    with pytest.raises(LockError, match="version 9"):
        read_lock(tmp_path / "vlmbench.lock")
    assert read_lock(tmp_path / "none.lock").sources == {}
    assert lock.VERSION == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (5, "has no `files`"),
        ({"commit": None}, "has no `commit` of 40 digits"),
        ({"commit": "c" * 10}, "has no `commit` of 40 digits"),
        ({"files": None}, "has no `files`"),
        ({"files": {"config.json": {"sha256": "0" * 64}}}, "has no `size` and `sha256` of config.json"),
        ({"files": {"config.json": {"size": 1, "sha256": None}}}, "has no `size` and `sha256` of config.json"),
    ],
)
def test_an_entry_that_cannot_be_read_is_named(place, change, words):
    source, path = Source("owner/name"), place / "vlmbench.lock"
    write_entry(path, source, entry_of(source, snapshot(place)))
    content = json.loads(path.read_text())
    entry = content["sources"]["owner/name"]
    content["sources"]["owner/name"] = entry | change if isinstance(change, dict) else change
    path.write_text(json.dumps(content))
    with pytest.raises(LockError, match=f"its entry owner/name {words}") as told:
        read_lock(path)
    assert "\n" not in str(told.value)


def test_what_a_folder_locked_does_not_hold_for_a_repository_of_its_name(place):
    entry = {"kind": "folder", "files": {"config.json": {"size": 1, "sha256": "0" * 64}}}
    folder = snapshot(place)
    assert locate.locate(Source("owner/name"), Lock(place, {"owner/name": entry})) == str(folder)


def test_the_revision_that_was_asked_for_stays_where_none_is_named(place):
    folder, path = snapshot(place), place / "vlmbench.lock"
    for revision in ("v1", None):
        source = Source("owner/name", revision=revision)
        write_entry(path, source, entry_of(source, folder))
        assert read_lock(path).sources["owner/name"]["revision"] == "v1"


def test_a_lock_is_written_only_where_it_changes_and_one_line_says_that_it_cannot_be(place, monkeypatch):
    folder, path, source = snapshot(place), place / "vlmbench.lock", Source("owner/name")
    write_entry(path, source, entry_of(source, folder))

    def refused(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(lock, "write_atomically", refused)
    write_entry(path, source, entry_of(source, folder))
    with pytest.raises(LockError, match=r"vlmbench.lock cannot be written: .*lock=") as told:
        write_entry(path, Source(str(TINY)), entry_of(Source(str(TINY)), TINY))
    assert "\n" not in str(told.value)


# ---------------------------------------------------------------------------------------- what is here, brought anew


def other_byte(path):
    """Damage weights so that neither their size nor their header tells."""
    path.write_bytes(WHOLE[:-5] + bytes([WHOLE[-5] ^ 255]) + WHOLE[-4:])


@pytest.mark.parametrize("commit", ["c" * 40, "d" * 40])
def test_a_blob_of_the_cache_is_used_only_if_it_is_as_published(server, commit):
    repository = server.add_folder("owner/tiny", TINY)
    weights = Path(locate.locate(Source("owner/tiny"))) / "model.safetensors"
    other_byte(weights.resolve())
    repository.commit = commit
    if commit[0] == "c":
        weights.unlink()
    else:
        hub.repository(Source("owner/tiny")).joinpath("refs", "main").write_text(commit)
    folder = Path(locate.locate(Source("owner/tiny")))
    assert folder.name == commit
    assert (folder / "model.safetensors").read_bytes() == WHOLE


def test_an_update_that_cannot_ask_is_an_error_and_locks_nothing(server, place, monkeypatch):
    server.add_folder("owner/tiny", TINY)
    data = zip_of_tiny()
    sources, path = (Source("owner/tiny"), address_of(server, "tiny.zip", data)), str(place / "vlmbench.lock")
    assert [fetch("x", source, path).status for source in sources] == ["downloaded"] * 2
    before = Path(path).read_text()
    other_byte((hub.snapshot(sources[0], "c" * 40) / "model.safetensors").resolve())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    rows = [fetch("x", source, path, update=True) for source in sources]
    assert [row.status for row in rows] == ["missing"] * 2
    assert all("update=true asks for" in row.fault for row in rows)
    # Nor with a server that does not answer.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(server, "plain", {})
    assert all(fetch("x", source, path, update=True).fault for source in sources)
    assert Path(path).read_text() == before


def test_the_name_of_a_revision_follows_the_hub_and_not_the_lock(server, place):
    repository, source, path = server.add_folder("owner/tiny", TINY), Source("owner/tiny"), place / "vlmbench.lock"
    folder = Path(locate.locate(source))
    write_entry(path, source, entry_of(source, folder))
    (folder / "config.json").unlink()
    ref = hub.repository(source) / "refs" / "main"
    ref.write_text("d" * 40)
    assert repository.commit == "c" * 40
    assert locate.locate(source, read_lock(path)) == str(folder)
    assert ref.read_text() == "d" * 40


def test_what_is_published_differs_from_the_lock_is_told_with_the_way_out(server, place):
    server.add_folder("owner/tiny", TINY)
    source, path = Source("owner/tiny"), place / "vlmbench.lock"
    assert not fetch("x", source, str(path)).fault
    content = json.loads(path.read_text())
    content["sources"]["owner/tiny"]["files"]["config.json"]["sha256"] = "0" * 64
    path.write_text(json.dumps(content))
    assert "update=true" in fetch("x", source, str(path)).fault
    assert not fetch("x", source, str(path), update=True).fault


# ------------------------------------------------------------------------------------------------- what goes wrong


def failing(monkeypatch, error):
    def raises(*_, **__):
        raise error

    monkeypatch.setattr(hub, "listing", raises)


def test_what_the_hub_refuses_is_one_line_that_says_what_to_do(server, monkeypatch):
    server.add_folder("owner/tiny", TINY)
    server.add_folder("owner/gated", TINY, gated=True)
    cases = [
        (Source("owner/tiny", revision="v9"), None, ["owner/tiny has no revision v9", "model.revision"]),
        (Source("owner/none"), None, ["There is no repository owner/none", "model.source"]),
        (Source("owner/gated"), None, ["is gated, and no token is set here", "hf auth login"]),
        (Source("owner/gated", how_to_get="Ask the owners."), None, ["Ask the owners."]),
        (Source("owner/gated"), "hf_other", ["the account of the token here has no access", "Accept the terms on"]),
        (Source("own er/x"), None, ["no hub id either"]),
        (Source("owner/tiny", files=("x.pth",)), None, ["has no file x.pth", "model.safetensors", "`files`"]),
    ]
    for source, token, words in cases:
        with monkeypatch.context() as patch:
            if token:
                patch.setenv("HF_TOKEN", token)
            with pytest.raises(WeightsUnavailableError) as told:
                locate.locate(source)
        for word in words:
            assert word in str(told.value), (source, str(told.value))
        assert "\n" not in str(told.value)


def test_a_token_with_consent_reads_what_is_gated_and_does_not_follow_to_another_host(server, monkeypatch):
    server.add_folder("owner/gated", TINY, gated=True)
    server.consenting.add("hf_mine")
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    folder = Path(locate.locate(Source("owner/gated", gated=True)))
    assert (folder / "model.safetensors").read_bytes() == WHOLE
    assert not server.storage_saw_token


def test_a_full_disk_is_told_and_what_arrived_is_kept(server, monkeypatch):
    server.add_folder("owner/tiny", TINY)
    real = download._stream

    def full(url, part, *rest):
        if url.endswith("model.safetensors"):
            part.write_bytes(WHOLE[:1000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(url, part, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(download, "_stream", full)
        with pytest.raises(WeightsUnavailableError, match=r"is full.*HF_HOME.*kept and continued"):
            locate.locate(Source("owner/tiny"))
    assert (Path(locate.locate(Source("owner/tiny"))) / "model.safetensors").read_bytes() == WHOLE
    assert server.sent["model.safetensors"] == [len(WHOLE) - 1000]
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
        server.add_folder("owner/other", TINY)
        with pytest.raises(WeightsUnavailableError, match=r"is full: .*GiB needed, 0.0 GiB free"):
            locate.locate(Source("owner/other"))


def test_no_network_is_told_at_once(server, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsUnavailableError, match=r"neither in the cache .*nor reachable \(ConnectionError"):
        locate.locate(Source("owner/tiny", download_gib=2))


def test_a_gated_model_says_how_to_ask_for_it(place):
    with pytest.raises(WeightsUnavailableError, match="Accept the terms on"):
        locate.locate(Source("owner/name", gated=True))
    with pytest.raises(WeightsUnavailableError, match="Write to the owners"):
        locate.locate(Source("owner/name", gated=True, how_to_get="Write to the owners."))


def test_a_dataset_repository_is_one_too(server):
    repository = server.add_folder("owner/data", TINY, kind="dataset")
    repository.files = {"image_encoder(resnet50).pth": zipped(), "rows.parquet": b"x" * 5000}
    source = Source("owner/data", repo_type="dataset", files=("image_encoder(resnet50).pth",))
    folder = Path(locate.locate(source))
    assert [path.name for path in folder.iterdir()] == ["image_encoder(resnet50).pth"]
    assert "datasets--owner--data" in str(folder)
    assert content_digest(source, str(folder)) == f"datasets/owner/data@{'c' * 40}"
    with pytest.raises(WeightsUnavailableError, match="There is no repository"):
        locate.locate(Source("owner/data", files=("image_encoder(resnet50).pth",)))


def test_names_that_leave_the_folder_are_not_taken(server):
    server.add_folder("owner/tiny", TINY).files["../../evil.json"] = b"{}"
    folder = Path(locate.locate(Source("owner/tiny", files=("*",))))
    assert not list(folder.parent.parent.rglob("evil.json"))


# ------------------------------------------------------------------------------------------------------- addresses


def archive(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members.items():
            opened.writestr(name, data)
    return out.getvalue()


def address_of(server, name, data, **settings):
    server.plain[f"/{name}"] = data
    settings.setdefault("sha256", hashlib.sha256(data).hexdigest())
    return Source(f"{server.address}/{name}", **settings)


def test_an_archive_behind_an_address_is_unpacked_once_and_resumed(server):
    data = archive({"pretrained/pytorch_model.bin": os.urandom(300_000), "pretrained/config.json": b"{}"})
    source = address_of(server, "vit.zip", data)
    server.cut_after["vit.zip"] = 200_000
    folder = Path(locate.locate(source))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "pytorch_model.bin"]
    first, second = server.sent["vit.zip"]
    assert first == 200_000
    assert first + second < len(data) + 70_000  # what was in flight is asked for again, and no more
    asked = len(server.asked)
    assert locate.locate(source) == str(folder)
    assert len(server.asked) == asked
    assert content_digest(source, str(folder)).startswith("sha256:")


def test_another_hash_than_published_is_moved_aside_and_not_used(server):
    data = os.urandom(5000)
    source = address_of(server, "model.pth", data, sha256="0" * 64)
    with pytest.raises(WeightsUnavailableError, match=r"does not have the published hash 0{64}.*moved to .*damaged"):
        locate.locate(source)
    assert address.present(source) is None
    assert (address.home_of(source) / "model.pth.damaged").read_bytes() == data
    assert not list((address.home_of(source)).rglob("model.pth"))


def test_the_lock_gives_the_hash_where_none_was_published(server, place):
    data = os.urandom(5000)
    source, path = address_of(server, "model.pth", data), place / "vlmbench.lock"
    write_entry(path, source, entry_of(source, Path(locate.locate(source))))
    locked = read_lock(path)
    address.forget(source)
    server.corrupt.add("model.pth")
    with pytest.raises(WeightsUnavailableError, match="does not have the published hash"):
        locate.locate(Source(source.text), locked)


def zip_of_tiny():
    return archive({f"tiny/{path.name}": path.read_bytes() for path in TINY.iterdir()})


@pytest.mark.parametrize("away", ["offline", "server"])
def test_what_an_address_gave_stays_until_something_replaces_it(server, place, monkeypatch, away):
    source, path = address_of(server, "tiny.zip", zip_of_tiny()), place / "vlmbench.lock"
    assert fetch("x", source, str(path)).status == "downloaded"
    folder = Path(locate.locate(source))
    content = json.loads(path.read_text())
    right = content["sources"][source.text]["files"]["config.json"]["sha256"]
    content["sources"][source.text]["files"]["config.json"]["sha256"] = "0" * 64
    path.write_text(json.dumps(content))
    with monkeypatch.context() as patch:
        if away == "offline":
            patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        else:
            patch.setattr(server, "plain", {})
        assert fetch("x", source, str(path)).fault
    assert (folder / "model.safetensors").read_bytes() == WHOLE
    # And where the copy is the wrong one, it is replaced.
    content["sources"][source.text]["files"]["config.json"]["sha256"] = right
    path.write_text(json.dumps(content))
    (folder / "config.json").write_text("{}")
    assert fetch("x", source, str(path)).status == "downloaded"
    assert (folder / "config.json").read_bytes() == (TINY / "config.json").read_bytes()


def test_a_published_hash_counts_for_what_is_here_too(server, place):
    first, second = zip_of_tiny(), archive({"x/model.bin": os.urandom(5000)})
    locate.locate(address_of(server, "tiny.zip", first))
    source = address_of(server, "tiny.zip", second)
    with pytest.raises(WeightsUnavailableError, match=f"holds a file of SHA-256 .*not the published {source.sha256}"):
        locate.locate(source)
    assert fetch("x", source, str(place / "vlmbench.lock")).status == "downloaded"
    assert address.noted(source)["sha256"] == source.sha256


def test_an_archive_without_a_checkpoint_is_never_present(server, place):
    source = address_of(server, "empty.zip", archive({"README.md": b"none"}))
    for _ in range(2):
        row = fetch("x", source, str(place / "vlmbench.lock"))
        assert "is incomplete: it lacks model.safetensors" in row.fault
    (address.home_of(source) / address.CONTENT).mkdir(parents=True, exist_ok=True)
    note = {"size": 1, "sha256": source.sha256}
    (address.home_of(source) / address.NOTE).write_text(json.dumps(note))
    assert locate.here(source)[1] == ["model.safetensors"]


def test_an_address_without_encryption_or_hash_is_refused(server):
    server.plain["/model.pth"] = b"x" * 100
    with pytest.raises(WeightsUnavailableError, match="not encrypted"):
        locate.locate(Source(f"{server.address}/model.pth"))


def link():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as opened:
        member = zipfile.ZipInfo("passwords")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(member, "/etc/passwd")
    return out.getvalue()


def broken(name):
    """Return an archive with a member that is encrypted, of an unknown kind, or damaged."""
    data = bytearray(archive({"a.txt": os.urandom(50) * 2000}))
    local, central = data.find(b"PK\3\4"), data.find(b"PK\1\2")
    if name == "encrypted":
        data[local + 6] |= 1
        data[central + 8] |= 1
    elif name == "unknown":
        data[local + 8] = data[central + 10] = 99
    else:
        data[45:60] = b"\xff" * 15
    return bytes(data)


ARCHIVES = {
    **{name: (broken(name), "that can be unpacked") for name in ("encrypted", "unknown", "damaged")},
    "clash": (archive({"a": b"x", "a/b": b"y"}), "that can be unpacked"),
    "outside": (archive({"../evil.json": b"{}"}), "lies outside"),
    "absolute": (archive({"/etc/evil.json": b"{}"}), "lies outside"),
    "link": (link(), "is a link"),
    "bomb": (archive({"zeros.bin": bytes(300 * 2**20)}), "which no checkpoint does"),
    "page": (b"<html>log in</html>", "is no zip archive"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_may_not_be_unpacked_is_not(server, place, name):
    data, words = ARCHIVES[name]
    source = address_of(server, f"{name}.zip", data)
    with pytest.raises(WeightsUnavailableError, match=words):
        locate.locate(source)
    assert address.present(source) is None
    assert not [path for path in place.rglob("*") if path.name in ("evil.json", "passwords", "zeros.bin")]


# ------------------------------------------------------------------------------------------------------- transfers


def test_a_server_that_does_not_resume_is_asked_for_the_whole(place, server):
    server.plain["/model.pth"] = data = os.urandom(10_000)
    target = place / "model.pth"
    (place / f"model.pth{download.PART}").write_bytes(b"y" * 20_000)  # longer than the file: of another one
    positions: list[int] = []
    expected = download.Expected(len(data), hashlib.sha256(data).hexdigest())
    found = download.download(f"{server.address}/model.pth", target, expected, headers={}, told=positions.append)
    assert found == expected.sha256
    assert target.read_bytes() == data
    assert positions[-1] == len(data)
    assert not list(place.glob("*.incomplete"))


class Versions(BaseHTTPRequestHandler):
    """A server of one file with a version, which continues it only for those who have the same one."""

    data = b""
    tag = ""  # without one it continues nothing
    shift = 0
    cuts: ClassVar[list[int]] = []
    asked: ClassVar[list[tuple[str, str]]] = []

    def log_message(self, *_):
        pass

    def do_GET(self):
        asked = self.headers.get("Range", "")
        self.asked.append((asked, self.headers.get("If-Range", "")))
        ranged = asked and self.tag and self.headers.get("If-Range", self.tag) == self.tag
        start = int(asked[6:-1]) if ranged else 0
        if ranged and start >= len(self.data):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if ranged else 200)
        if ranged:
            start += self.shift
            self.send_header("Content-Range", f"bytes {start}-{len(self.data) - 1}/{len(self.data)}")
        self.send_header("ETag", self.tag)
        self.send_header("Content-Length", str(len(self.data) - start))
        self.end_headers()
        self.wfile.write(self.data[start : self.cuts.pop(0) if self.cuts else None])
        self.close_connection = True


@pytest.fixture
def versions(place, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda _: None)
    Versions.data, Versions.tag, Versions.shift, Versions.cuts, Versions.asked = b"B" * 50_000, '"b"', 0, [], []
    running = ThreadingHTTPServer(("127.0.0.1", 0), Versions)
    threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{running.server_address[1]}/w.bin"
    running.shutdown()


@pytest.mark.parametrize("tag", ["", '"a"', '"b"'])
@pytest.mark.parametrize("size", [50_000, None])
def test_a_part_is_continued_only_within_one_version(place, versions, tag, size):
    (place / f"w.bin{download.PART}").write_bytes((b"B" if tag == '"b"' else b"A") * 20_000)
    if tag:
        (place / "w.bin.vlmbench.version").write_text(tag)
    download.download(versions, place / "w.bin", download.Expected(size), headers={}, told=lambda _: None)
    assert (place / "w.bin").read_bytes() == Versions.data
    assert Versions.asked == [("bytes=20000-", tag) if tag else ("", "")]
    assert not list(place.glob("w.bin.*"))


def test_a_connection_that_breaks_is_continued_at_the_version_that_began(place, versions):
    Versions.cuts = [20_000]
    download.download(versions, place / "w.bin", download.Expected(), headers={}, told=lambda _: None)
    assert (place / "w.bin").read_bytes() == Versions.data
    assert Versions.asked == [("", ""), ("bytes=20000-", '"b"')]


def test_a_part_that_does_not_fit_the_answer_is_begun_again(place, versions):
    expected = download.Expected(None, hashlib.sha256(Versions.data).hexdigest())
    for have, Versions.shift in ((80_000, 0), (20_000, 100)):
        (place / f"w.bin{download.PART}").write_bytes(b"B" * have)
        download.download(versions, place / "w.bin", expected, headers={}, told=lambda _: None)
        assert (place / "w.bin").read_bytes() == Versions.data


def test_another_size_than_announced_is_moved_aside(place, versions):
    with pytest.raises(WeightsUnavailableError, match="does not have the published size 60,000: 50,000 bytes"):
        download.download(versions, place / "w.bin", download.Expected(60_000), headers={}, told=lambda _: None)
    assert not (place / "w.bin").exists()


def test_a_server_that_always_breaks_is_given_up(place, versions):
    Versions.cuts, Versions.tag = [30_000, 20_000] * 50, ""
    with pytest.raises(Exception, match="peer closed connection"):
        download.download(versions, place / "w.bin", download.Expected(), headers={}, told=lambda _: None)
    assert len(Versions.asked) < 12


def test_a_log_has_one_line_a_file(capsys):
    progress = TransferProgress()
    progress.begin(Source("owner/name"), 3 * 2**20)
    progress.file("model.safetensors", 3 * 2**20)
    progress.told(2**20)
    progress.told(3 * 2**20)
    progress.end()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "owner/name: 3.0 MiB to download"
    assert lines[1].startswith("  model.safetensors  3.0 MiB")
    assert "continued at 1.0 MiB" in lines[1]
    assert len(lines) == 2
