"""Where checkpoints come from: what counts as present, what is told of what is not, the lock file, and archives."""

import errno
import hashlib
import io
import json
import os
import pickle
import shutil
import stat
import zipfile
from pathlib import Path

import pytest
from hub_server import Hub
from safetensors.numpy import load_file, save_file

from vlmbench.weights import address, download, hub, locate, lock
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


ARCHIVES = {
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
