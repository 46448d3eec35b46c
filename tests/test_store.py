"""Results on disk: kept once by many processes, whatever becomes of one of them or of the disk."""

import hashlib
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest

from vlmbench.domains.store import DATA, INDEX, BlobStore

FORK = multiprocessing.get_context("fork")  # each starts in milliseconds, and none has threads when it is made


def key_of(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def blob_of(key: bytes) -> bytes:
    return key * (1 + key[1])


def keys(count: int) -> list[bytes]:
    return [key_of(number) for number in range(count)]


def check(folder: Path, wanted: list[bytes]) -> None:
    store = BlobStore(folder)
    store.refresh()
    assert [store.get(key) for key in wanted] == [blob_of(key) for key in wanted]


def filled(folder: Path, count: int) -> BlobStore:
    store = BlobStore(folder)
    store.fill(keys(count), blob_of, "")
    return store


def wait_for(path: Path, size: int) -> None:
    deadline = time.monotonic() + 20
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < deadline, f"{path} stays small"
        time.sleep(0.005)


def test_what_was_kept_is_read_by_this_store_and_by_others(tmp_path):
    store = filled(tmp_path / "a", 300)
    assert len(store) == 300
    assert store.get(key_of(1000)) is None
    assert [store.get(key) for key in keys(300)] == [blob_of(key) for key in keys(300)]
    check(tmp_path / "a", keys(300))
    copied = pickle.loads(pickle.dumps(store))
    assert copied.get(key_of(7)) == blob_of(key_of(7))


def test_only_what_is_missing_is_made_and_none_keeps_nothing(tmp_path):
    filled(tmp_path, 100)
    made: list[bytes] = []

    def make(key: bytes) -> bytes | None:
        made.append(key)
        return None if key == key_of(120) else blob_of(key)

    store = BlobStore(tmp_path)
    assert store.fill([*keys(150), *keys(150)], make, "") == 0
    assert sorted(made) == sorted(keys(150)[100:])
    assert key_of(120) not in store
    assert len(store) == 149


def test_processes_that_fill_at_once_share_the_work(tmp_path):
    def work(number: int) -> None:
        def make(key: bytes) -> bytes:
            with (tmp_path / f"made-{number}").open("ab") as file:
                file.write(b".")
            time.sleep(0.0005)
            return blob_of(key)

        BlobStore(tmp_path / "store").fill(keys(1500), make, "")

    workers = [FORK.Process(target=work, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    check(tmp_path / "store", keys(1500))
    assert sum(path.stat().st_size for path in tmp_path.glob("made-*")) == 1500
    assert (tmp_path / "store" / INDEX).stat().st_size == 1500 * 64


def test_after_kill_9_the_rest_alone_is_made(tmp_path):
    def slowly() -> None:
        def make(key: bytes) -> bytes:
            time.sleep(0.002)
            return blob_of(key)

        BlobStore(tmp_path).fill(keys(2000), make, "")

    worker = FORK.Process(target=slowly)
    worker.start()
    wait_for(tmp_path / INDEX, 64 * 200)
    assert worker.pid
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    there = BlobStore(tmp_path)
    there.refresh()
    assert 200 <= len(there) < 2000
    made: list[bytes] = []
    there.fill(keys(2000), lambda key: made.append(key) or blob_of(key), "")  # type: ignore[func-returns-value]
    check(tmp_path, keys(2000))
    assert len(made) + 200 <= 2000


@pytest.mark.parametrize("tail", [1, 63, 64, 65, 200])
def test_a_record_written_in_part_costs_itself_alone(tmp_path, tail):
    filled(tmp_path, 50)
    with (tmp_path / INDEX).open("ab") as index, (tmp_path / DATA).open("ab") as data:
        index.write(b"\7" * tail)
        data.write(b"what no record names")
    reader = BlobStore(tmp_path)
    reader.refresh()
    assert len(reader) == 50
    filled(tmp_path, 80)
    reader.refresh()
    assert len(reader) == 80
    check(tmp_path, keys(80))


def test_what_a_power_cut_leaves_empty_is_made_again(tmp_path):
    filled(tmp_path, 60)
    index = bytearray((tmp_path / INDEX).read_bytes())
    index[64 * 20 : 64 * 21] = bytes(64)
    (tmp_path / INDEX).write_bytes(index)
    store = BlobStore(tmp_path)
    store.refresh()
    assert len(store) == 59
    store.fill(keys(60), blob_of, "")
    check(tmp_path, keys(60))


def test_a_flipped_byte_is_found_and_the_blob_made_again(tmp_path):
    store = filled(tmp_path, 40)
    with (tmp_path / DATA).open("r+b") as data:
        data.seek(1000)
        (byte,) = data.read(1)
        data.seek(1000)
        data.write(bytes([byte ^ 1]))
    lost = [key for key in keys(40) if store.get(key) is None]
    assert len(lost) == 1
    assert lost[0] not in store
    made: list[bytes] = []
    store.fill(keys(40), lambda key: made.append(key) or blob_of(key), "")  # type: ignore[func-returns-value]
    assert made == lost
    check(tmp_path, keys(40))


def test_data_that_were_cut_off_are_missing_and_nothing_else(tmp_path):
    filled(tmp_path, 40)
    os.truncate(tmp_path / DATA, (tmp_path / DATA).stat().st_size // 2)
    store = BlobStore(tmp_path)
    store.refresh()
    assert 0 < len(store) < 40
    (tmp_path / DATA).unlink()
    store = filled(tmp_path, 40)
    assert len(store) == 40
    check(tmp_path, keys(40))


def test_a_folder_that_was_deleted_is_filled_anew_by_a_store_that_is_open(tmp_path):
    store, other = filled(tmp_path / "a", 100), BlobStore(tmp_path / "a")
    other.refresh()
    shutil.rmtree(tmp_path / "a")
    assert other.get(key_of(3)) == blob_of(key_of(3))  # the open file is whole until it is closed
    store.fill(keys(30), blob_of, "")
    assert len(store) == 30
    other.refresh()
    assert len(other) == 30
    assert all(other.get(key) == blob_of(key) for key in keys(30))
    check(tmp_path / "a", keys(30))


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_damaged_a_blob_is_right_or_missing_and_can_be_made_again(tmp_path, seed):
    rng = random.Random(seed)
    for _ in range(5):
        filled(tmp_path, 150)
        for name in rng.sample((DATA, INDEX), rng.randint(1, 2)):
            held = bytearray((tmp_path / name).read_bytes())
            at = rng.randrange(len(held))
            if seed % 3 == 0:
                held = held[:at]
            elif seed % 3 == 1:
                held[at] ^= 1 << rng.randrange(8)
            else:
                held[at : at + 500] = bytes(len(held[at : at + 500]))
            (tmp_path / name).write_bytes(held)
        store = BlobStore(tmp_path)
        store.refresh()
        assert all(store.get(key) in (None, blob_of(key)) for key in keys(150))  # what is damaged is missing from here
        store.fill(keys(150), blob_of, "")
        assert all(store.get(key) == blob_of(key) for key in keys(150))
    check(tmp_path, keys(150))


def test_data_that_were_deleted_are_made_anew_and_seen_by_stores_that_are_open(tmp_path):
    reader = filled(tmp_path, 40)
    (tmp_path / DATA).unlink()
    filled(tmp_path, 10)
    reader.refresh()
    assert len(reader) == 10
    assert [reader.get(key) for key in keys(10)] == [blob_of(key) for key in keys(10)]
    filled(tmp_path, 40)  # none of those that were lost is taken for there
    check(tmp_path, keys(40))


def test_a_full_disk_is_an_error_and_leaves_what_was_kept(tmp_path):
    filled(tmp_path, 64)
    size = (tmp_path / DATA).stat().st_size

    def fill_up() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20_000, size + 20_000))
        try:
            filled(tmp_path, 500)
        except OSError:
            os._exit(7)
        os._exit(0)

    worker = FORK.Process(target=fill_up)
    worker.start()
    worker.join(30)
    assert worker.exitcode == 7
    assert (tmp_path / INDEX).stat().st_size % 64 == 0
    assert (tmp_path / DATA).stat().st_size <= size + 20_000
    check(tmp_path, keys(64))
    filled(tmp_path, 500)
    check(tmp_path, keys(500))


def test_filling_ends_where_room_does_and_says_how_much_is_missing(tmp_path):
    limit = 150_000

    def room() -> float:
        return limit - sum(path.stat().st_size for path in tmp_path.glob("*.bin"))

    store = BlobStore(tmp_path)
    missing = store.fill(keys(1000), blob_of, "", room)
    assert 0 < missing < 1000
    assert len(store) == 1000 - missing
    assert sum(path.stat().st_size for path in tmp_path.glob("*.bin")) <= limit
    assert store.fill(keys(1000), blob_of, "", room) > 0
    assert sum(path.stat().st_size for path in tmp_path.glob("*.bin")) <= limit
    assert store.fill(keys(1000), blob_of, "") == 0
    check(tmp_path, keys(1000))


def test_large_blobs_are_made_few_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("vlmbench.domains.store._MEMORY", 10_000)
    held: list[int] = []
    store = BlobStore(tmp_path)
    keep = store.keep

    def counted(blobs: list[tuple[bytes, bytes]]) -> None:
        held.append(sum(len(blob) for _, blob in blobs))
        keep(blobs)

    monkeypatch.setattr(store, "keep", counted)
    store.fill(keys(200), lambda key: key * 100, "")
    assert max(held) <= 8 * 3200
    assert len(store) == 200


def test_what_make_raises_is_passed_on_and_blocks_nobody(tmp_path):
    def broken(key: bytes) -> bytes:
        raise KeyError(key)

    store = BlobStore(tmp_path)
    with pytest.raises(KeyError):
        store.fill(keys(10), broken, "")
    check(filled(tmp_path, 10).folder, keys(10))


def test_a_place_that_cannot_be_written_is_an_error_of_the_system(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    store = BlobStore(tmp_path / "file" / "below")
    store.refresh()
    with pytest.raises(OSError, match="file"):
        store.fill(keys(3), blob_of, "")
    assert store.get(key_of(0)) is None
