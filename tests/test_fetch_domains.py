"""`python -m vlmbench.fetch domain=...` against a local server: what arrives, what is refused, what a kill leaves."""

import errno
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from data_server import Files, md5, tarred, zipped
from hub_server import Hub

from vlmbench.catalogue.domain_show import facts
from vlmbench.catalogue.read import named_domain
from vlmbench.errors import UserError
from vlmbench.obtain.bring import bring
from vlmbench.obtain.wanted import Wanted, needed
from vlmbench.weights.download import PART

NOISE = os.urandom(400_000)
IMAGES = {"imgs/1.jpg": b"one", "imgs/2.jpg": NOISE}
SET = zipped(IMAGES)


@pytest.fixture
def files(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("VLMBENCH_DATA", str(tmp_path))
    served = Files()
    server = served.serve()
    yield served
    server.shutdown()


def offer(files: Files, name: str, data: bytes, **more) -> Wanted:
    """Serve a file and return how it is asked for."""
    files.plain[f"/{name}"] = data
    return Wanted(f"{files.address}/{name}", checksum=f"md5:{md5(data)}", **more)


def in_place(root: Path) -> list[str]:
    """What lies below a root, but for what fetch keeps for itself."""
    names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    return sorted(name for name in names if not name.startswith(".fetch/"))


def refused(root: Path, wanted: Wanted, layout: tuple[str, ...] = ("imgs/*.jpg",)) -> str:
    """Fetch what cannot be had; nothing is in place, and the message is one line."""
    with pytest.raises(UserError) as stop:
        bring("mine", root, [wanted], layout)
    assert in_place(root) == []
    assert "\n" not in str(stop.value)
    return str(stop.value)


def test_an_archive_is_verified_unpacked_and_removed_and_a_second_run_asks_nobody(files, tmp_path):
    wanted, root = offer(files, "imgs.zip", SET), tmp_path / "mine"
    assert bring("mine", root, [wanted], ["imgs/*.jpg"]).status == "downloaded"
    assert in_place(root) == ["imgs/1.jpg", "imgs/2.jpg"]
    assert (root / "imgs/2.jpg").read_bytes() == NOISE
    (note,) = json.loads((root / ".fetch/fetched.json").read_text())["files"].values()
    assert (note["source"], note["name"], note["size"], note["members"]) == (wanted.source, "imgs.zip", len(SET), 2)
    assert len(note["sha256"]) == 64
    assert {path.name for path in (root / ".fetch").iterdir()} == {"fetched.json", "lists", "lock"}
    asked = len(files.asked)
    assert bring("mine", root, [wanted], ["imgs/*.jpg"]).status == "present"
    os.utime(root / "imgs/2.jpg")  # copied, say, with the same bytes
    assert bring("mine", root, [wanted], ["imgs/*.jpg"]).status == "present"
    assert len(files.asked) == asked


def test_a_file_that_is_gone_or_changed_is_brought_again_and_the_changed_one_is_kept(files, tmp_path, capsys):
    wanted, root = offer(files, "imgs.zip", SET), tmp_path / "mine"
    bring("mine", root, [wanted], ["imgs/*.jpg"])
    (root / "imgs/1.jpg").write_bytes(b"eno")  # as long as before
    assert bring("mine", root, [wanted], ["imgs/*.jpg"]).status == "downloaded"
    (root / "imgs/2.jpg").unlink()
    assert bring("mine", root, [wanted], ["imgs/*.jpg"]).status == "downloaded"
    assert (root / "imgs/1.jpg").read_bytes() == b"one"
    assert (root / "imgs/2.jpg").read_bytes() == NOISE
    assert (root / ".fetch/replaced/imgs/1.jpg").read_bytes() == b"eno"
    assert "had been changed" in capsys.readouterr().err


def test_a_layout_that_the_user_put_there_is_present(files, tmp_path):
    (tmp_path / "mine/imgs").mkdir(parents=True)
    (tmp_path / "mine/imgs/9.jpg").write_bytes(b"mine")
    assert bring("mine", tmp_path / "mine", [offer(files, "imgs.zip", SET)], ["imgs/*.jpg"]).status == "present"
    assert not files.asked
    assert not (tmp_path / "mine/.fetch").exists()


def test_an_archive_that_the_user_downloaded_himself_is_unpacked_and_left(files, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/imgs.zip").write_bytes(SET)
    bring("mine", tmp_path / "mine", [offer(files, "imgs.zip", SET)], ["imgs/*.jpg"])
    assert in_place(tmp_path / "mine") == ["imgs.zip", "imgs/1.jpg", "imgs/2.jpg"]
    assert "/imgs.zip" not in files.gets()


def test_what_lies_there_and_is_another_is_never_overwritten(files, tmp_path):
    (tmp_path / "mine/imgs").mkdir(parents=True)
    (tmp_path / "mine/imgs/2.jpg").write_bytes(b"the user's own")
    with pytest.raises(UserError, match="jpg is there already"):
        bring("mine", tmp_path / "mine", [offer(files, "imgs.zip", SET)], ["imgs/1.jpg"])
    assert in_place(tmp_path / "mine") == ["imgs/2.jpg"]
    (tmp_path / "mine/imgs/2.jpg").unlink()
    sent = len(files.gets())
    bring("mine", tmp_path / "mine", [offer(files, "imgs.zip", SET)], ["imgs/1.jpg"])
    assert len(files.gets()) == sent  # what had arrived was kept


def test_parts_are_merged_into_one_folder_unless_they_contradict_each_other(files, tmp_path):
    one = offer(files, "part_1.zip", zipped({"1.jpg": b"one", "readme": b"same"}), into="imgs")
    two = offer(files, "part_2.zip", zipped({"2.jpg": b"two", "readme": b"same"}), into="imgs")
    three = offer(files, "part_3.zip", zipped({"2.jpg": b"too"}), into="imgs")
    bring("mine", tmp_path / "mine", [one, two], ["imgs/*.jpg"])
    assert in_place(tmp_path / "mine") == ["imgs/1.jpg", "imgs/2.jpg", "imgs/readme"]
    with pytest.raises(UserError, match=r"part_\d.zip and part_\d.zip both have imgs/2.jpg"):
        bring("other", tmp_path / "other", [two, three], ["imgs/*.jpg"])
    assert in_place(tmp_path / "other") == []
    with pytest.raises(UserError, match="both have imgs"):  # nor when the one came before the other
        bring("mine", tmp_path / "mine", [one, two, three], ["imgs/*.jpg"])
    assert (tmp_path / "mine/imgs/2.jpg").read_bytes() == b"two"


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "a.tar.xz"])
def test_tars_are_unpacked(files, tmp_path, name):
    mode = {"a.tar": "w", "a.tar.xz": "w:xz"}.get(name, "w:gz")
    bring(
        "mine", tmp_path / "mine", [offer(files, name, tarred({"./top/x.png": NOISE, "top/y": b""}, mode))], ["top/*"]
    )
    assert in_place(tmp_path / "mine") == ["top/x.png", "top/y"]
    assert (tmp_path / "mine/top/x.png").read_bytes() == NOISE


def test_one_file_in_gzip_is_unpacked_and_nifti_and_npz_stay_as_readers_expect_them(files, tmp_path):
    table, volume = gzip.compress(b"a,b\n"), gzip.compress(b"volume")
    wanted = [offer(files, "t.csv.gz", table), offer(files, "v.nii.gz", volume), offer(files, "d.npz", SET)]
    bring("mine", tmp_path / "mine", wanted, ["t.csv", "v.nii.gz", "d.npz"])
    assert in_place(tmp_path / "mine") == ["d.npz", "t.csv", "v.nii.gz"]
    assert (tmp_path / "mine/t.csv").read_bytes() == b"a,b\n"


def test_an_archive_that_the_layout_names_is_kept_and_one_with_unpack_false_is_not_unpacked(files, tmp_path):
    bring("mine", tmp_path / "mine", [offer(files, "imgs.zip", SET)], ["imgs.zip", "imgs/*"])
    assert in_place(tmp_path / "mine") == ["imgs.zip", "imgs/1.jpg", "imgs/2.jpg"]
    bring("other", tmp_path / "other", [offer(files, "imgs.zip", SET, unpack=False)], ["imgs.zip"])
    assert in_place(tmp_path / "other") == ["imgs.zip"]


@pytest.mark.parametrize("data", [SET, tarred(IMAGES), tarred(IMAGES, "w")])
def test_an_archive_at_an_address_without_an_ending_is_known_by_its_bytes(files, tmp_path, data):
    bring("mine", tmp_path / "mine", [offer(files, "contents/blob", data)], ["imgs/*.jpg"])
    assert in_place(tmp_path / "mine") == ["imgs/1.jpg", "imgs/2.jpg"]


def test_an_address_that_does_not_end_in_a_name_is_given_one(files, tmp_path):
    wanted = replace(offer(files, "files/file_downloaded", SET), files=("set.zip",))
    bring("mine", tmp_path / "mine", [wanted], ["imgs/*.jpg"])
    assert in_place(tmp_path / "mine") == ["imgs/1.jpg", "imgs/2.jpg"]


def info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def linked_zip() -> bytes:
    made = zipfile.ZipInfo("imgs/link")
    made.external_attr = 0o120777 << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("imgs/1.jpg", b"one")
        archive.writestr(made, "/etc/passwd")
    return out.getvalue()


def encrypted_zip() -> bytes:
    data = bytearray(zipped({"imgs/1.jpg": b"one"}))
    data[6] |= 1  # the flag in the local header, and the one in the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


HOSTILE = {
    "up.zip": (zipped({"imgs/1.jpg": b"1", "../../evil": b"x"}), "lies outside"),
    "windows_up.zip": (zipped({"imgs/1.jpg": b"1", "..\\evil": b"x"}), "lies outside"),
    "drive.zip": (zipped({"C:\\evil": b"x"}), "lies outside"),
    "absolute.zip": (zipped({"/tmp/evil": b"x"}), "lies outside"),
    "link.zip": (linked_zip(), "is a link"),
    "encrypted.zip": (encrypted_zip(), "is encrypted"),
    "case.zip": (zipped({"imgs/a.jpg": b"1", "imgs/A.jpg": b"2"}), "are one file on some disks"),
    "both.zip": (zipped({"imgs": b"1", "imgs/a.jpg": b"2"}), "is a file and a folder"),
    "bomb.zip": (zipped({"imgs/1.jpg": bytes(64 * 2**20)}, compression=zipfile.ZIP_DEFLATED), "which no dataset does"),
    "long.zip": (zipped({"imgs/" + "a" * 300: b"1"}), "no file system takes"),
    "up.tar.gz": (tarred({"imgs/1.jpg": b"1", "../evil": b"x"}), "lies outside"),
    "absolute.tar": (tarred({"/tmp/evil": b"x"}, "w"), "lies outside"),
    "symlink.tar": (tarred({"imgs/1.jpg": b"1", "l": info("imgs/l", tarfile.SYMTYPE, "/etc")}, "w"), "is a link"),
    "hardlink.tar": (tarred({"l": info("imgs/l", tarfile.LNKTYPE, "imgs/1.jpg")}, "w"), "is a link"),
    "device.tar": (tarred({"d": info("imgs/null", tarfile.CHRTYPE)}, "w"), "is a device"),
    "fifo.tar": (tarred({"d": info("imgs/fifo", tarfile.FIFOTYPE)}, "w"), "is a device"),
    "bomb.tar.gz": (tarred({"imgs/1.jpg": bytes(64 * 2**20)}), "which no dataset does"),
    "bomb.gz": (gzip.compress(bytes(64 * 2**20)), "becomes more than"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_archive_with_a_bad_member_is_not_unpacked_at_all(files, tmp_path, name):
    data, reason = HOSTILE[name]
    assert reason in refused(tmp_path / "deep/mine", offer(files, name, data))
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name or path.name == "1.jpg"]
    sent = len(files.gets())
    assert reason in refused(tmp_path / "deep/mine", offer(files, name, data))
    assert len(files.gets()) == sent  # it is known by now


@pytest.mark.parametrize("name", ["cut.zip", "cut.tar", "cut.tar.gz", "between.tar"])
def test_a_truncated_archive_is_moved_aside(files, tmp_path, name):
    whole = {"zip": SET, "tar": tarred(IMAGES, "w"), "gz": tarred(IMAGES)}[name.rpartition(".")[2]]
    at = 1024 if name == "between.tar" else len(whole) * 2 // 3  # after the first member
    assert "cannot be unpacked" in refused(tmp_path / "mine", offer(files, name, whole[:at]))
    assert len(list((tmp_path / "mine/.fetch/parts").rglob("*.damaged"))) == 1
    bring("mine", tmp_path / "mine", [offer(files, name, whole)], ["imgs/*.jpg"])


def test_a_damaged_header_in_the_middle_of_a_tar_is_not_taken_for_its_end(files, tmp_path):
    whole = tarred({f"imgs/{i}.jpg": b"x" for i in range(9)}, "w")
    broken = bytearray(whole)
    broken[4 * 1024 + 150] ^= 1  # within the checksum of the fifth member's header
    for name, data in {"a.tar": bytes(broken), "b.tar.gz": gzip.compress(bytes(broken))}.items():
        assert "bad checksum" in refused(tmp_path / name, offer(files, name, data))
    bring("mine", tmp_path / "mine", [offer(files, "a.tar", whole)], ["imgs/*.jpg"])


def test_the_checksum_at_the_end_of_a_compressed_tar_is_compared(files, tmp_path):
    broken = bytearray(tarred(IMAGES))
    broken[-8] ^= 1
    assert "CRC check failed" in refused(tmp_path / "mine", offer(files, "a.tar.gz", bytes(broken)))


def bad_name() -> bytes:
    data = zipped({"imgs/\u00e9.jpg": b"1"})
    return data.replace("\u00e9".encode(), b"\xff\xff")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("bz.zip", zipped({"imgs/1.jpg": NOISE}, compression=zipfile.ZIP_BZIP2).replace(b"BZh9", b"BZhx")),
        ("flipped.tar.bz2", tarred(IMAGES, "w:bz2").replace(b"BZh9", b"BZhx")),
        ("name.zip", bad_name()),
    ],
)
def test_what_a_decoder_cannot_read_is_damage_and_no_lost_connection(files, tmp_path, name, data):
    assert "truncated, damaged or no such archive" in refused(tmp_path / "mine", offer(files, name, data))


def test_wrong_bytes_are_moved_aside_and_the_next_run_is_right(files, tmp_path):
    wanted = offer(files, "imgs.zip", SET)
    files.plain["/imgs.zip"] = SET[:-1] + b"!"
    assert "does not have the published hash" in refused(tmp_path / "mine", wanted)
    assert len(list((tmp_path / "mine/.fetch/parts").rglob("*.damaged"))) == 1
    files.plain["/imgs.zip"] = SET
    bring("mine", tmp_path / "mine", [wanted], ["imgs/*.jpg"])


def test_a_log_in_page_in_place_of_a_file_is_named(files, tmp_path):
    page = b"<!DOCTYPE html><html>please log in</html>"
    for name in ("imgs.zip", "imgs.tar.gz", "labels.csv"):
        message = refused(tmp_path / "mine", offer(files, name, page))
        assert f"{files.address}/{name}" in message
        assert "is an HTML page" in message


@pytest.mark.parametrize(("status", "told"), [(403, "Write to the owners."), (404, "is not there any more")])
def test_a_server_that_refuses_is_one_line_with_what_to_do(files, tmp_path, status, told):
    wanted = offer(files, "imgs.zip", SET)
    files.status["/imgs.zip"] = status
    with pytest.raises(UserError, match=told) as stop:
        bring("mine", tmp_path / "mine", [wanted], ["imgs/*.jpg"], how_to_get="write to the owners")
    assert f"answers {status} for {files.address}/imgs.zip" in str(stop.value)


def test_a_connection_that_breaks_is_continued_and_without_ranges_begun_again(files, tmp_path):
    wanted = offer(files, "imgs.zip", SET)
    files.cut_after["/imgs.zip"] = 150_000
    bring("mine", tmp_path / "mine", [wanted], ["imgs/*.jpg"])
    first, second = files.sent["/imgs.zip"]
    assert first == 150_000
    assert len(SET) - 150_000 <= second < len(SET)  # what was on its way when the connection broke comes again
    files.sent.clear()
    files.cut_after["/imgs.zip"] = 150_000
    files.no_range.add("/imgs.zip")
    bring("other", tmp_path / "other", [wanted], ["imgs/*.jpg"])
    assert files.sent["/imgs.zip"] == [150_000, len(SET)]
    assert (tmp_path / "other/imgs/2.jpg").read_bytes() == NOISE


def test_what_a_server_encodes_on_its_way_is_begun_again_when_the_connection_breaks(files, tmp_path):
    wanted = offer(files, "imgs.zip", SET)
    files.encoded.add("/imgs.zip")
    files.cut_after["/imgs.zip"] = 300_000
    bring("mine", tmp_path / "mine", [wanted], ["imgs/*.jpg"])
    assert (tmp_path / "mine/imgs/2.jpg").read_bytes() == NOISE


def test_a_busy_server_is_left_alone_as_long_as_it_says(files, tmp_path, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr("vlmbench.weights.download.time.sleep", slept.append)
    wanted = offer(files, "imgs.zip", SET)
    files.busy["/imgs.zip"] = 2  # a HEAD and a GET
    bring("mine", tmp_path / "mine", [wanted], ["imgs/*.jpg"])
    assert slept == [7.0]


def test_an_encrypted_address_without_a_checksum_may_not_lead_to_one_that_is_not(tmp_path, monkeypatch):
    import httpx

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.scheme == "https":
            return httpx.Response(302, headers={"Location": "http://mirror.example/a.csv"}, request=request)
        return httpx.Response(200, content=b"a,b\n", request=request)

    client = httpx.Client(transport=httpx.MockTransport(answer))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils.get_session", lambda: client)
    assert "is not encrypted" in refused(tmp_path / "mine", Wanted("https://set.example/a.csv"), ("a.csv",))
    named = Wanted("https://set.example/a.csv", checksum=f"md5:{md5(b'a,b' + bytes([10]))}")
    assert bring("mine", tmp_path / "mine", [named], ["a.csv"]).files == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2, "wanted": {}, "files": {}}'])
def test_a_note_that_cannot_be_read_vouches_for_nothing(files, tmp_path, text):
    wanted, root = offer(files, "imgs.zip", SET), tmp_path / "mine"
    bring("mine", root, [wanted], ["imgs/*.jpg"])
    (root / "imgs/2.jpg").unlink()  # the layout is still matched
    (root / ".fetch/fetched.json").write_text(text)
    assert bring("mine", root, [wanted], ["imgs/*.jpg"]).status == "downloaded"
    assert (root / "imgs/2.jpg").read_bytes() == NOISE
    assert bring("mine", root, [wanted], ["imgs/*.jpg"]).status == "present"


def test_names_with_tabs_and_line_breaks_are_known_again(files, tmp_path):
    odd = {"imgs/a\tb.jpg": b"1", "imgs/Icon\r": b"2", "imgs/c\u2028d\n.jpg": b"3", "imgs/50%25.jpg": b"4"}
    wanted = offer(files, "imgs.zip", zipped(odd))
    assert bring("mine", tmp_path / "mine", [wanted], ["imgs/*.jpg"]).status == "downloaded"
    assert bring("mine", tmp_path / "mine", [wanted], ["imgs/*.jpg"]).status == "present"
    assert in_place(tmp_path / "mine") == sorted(odd)


def test_a_path_that_the_disk_does_not_take_is_no_lost_connection(files, tmp_path):
    deep = zipped({"imgs/" + "/".join(["d" * 200] * 30): b"x"})
    assert "cannot be written (File name too long)" in refused(tmp_path / "mine", offer(files, "imgs.zip", deep))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be written"):
        bring("mine", tmp_path / "file", [offer(files, "imgs.zip", SET)], ["imgs/*.jpg"])


def test_a_full_disk_is_told_before_and_during_the_download(files, tmp_path, monkeypatch):
    wanted = offer(files, "imgs.zip", SET)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
        message = refused(tmp_path / "mine", wanted)
        assert f"The disk of {tmp_path / 'mine'} is full" in message
        assert not files.gets()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("vlmbench.obtain.archive._Writing.write", full)
        assert "is full" in refused(tmp_path / "mine", wanted)
        assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".unpacking")]
    bring("mine", tmp_path / "mine", [wanted], ["imgs/*.jpg"])
    assert len(files.gets()) == 1


SCRIPT = """
import os, signal, sys
from pathlib import Path
from vlmbench.obtain import archive, place
from vlmbench.obtain.bring import bring
from vlmbench.obtain.wanted import Wanted

def die_after(function, calls):
    def counted(*arguments):
        calls[0] -= 1
        if calls[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return counted

if sys.argv[1] == "unpacking":
    archive._Writing.write = die_after(archive._Writing.write, [1])
if sys.argv[1] == "moving":
    place.shutil.move = die_after(place.shutil.move, [1])
wanted = [Wanted(url, checksum=checksum) for url, checksum in (text.split("|") for text in sys.argv[3:])]
print(bring("mine", Path(sys.argv[2]), wanted, ["imgs/*.jpg"]).status)
"""


def start(point: str, root: Path, *wanted: Wanted) -> "subprocess.Popen[str]":
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    pairs = [f"{one.source}|{one.checksum}" for one in wanted]
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, point, str(root), *pairs],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_download_asks_for_exactly_the_missing_bytes(files, tmp_path):
    wanted, root = offer(files, "imgs.zip", SET), tmp_path / "mine"
    files.slow["/imgs.zip"] = 0.02
    process = start("downloading", root, wanted)
    deadline = time.monotonic() + 60
    while not [part for part in root.rglob(f"*{PART}") if part.stat().st_size > 100_000]:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (part,) = root.rglob(f"*{PART}")
    have = part.stat().st_size
    assert in_place(root) == []
    files.slow.clear()
    files.sent.clear()
    bring("mine", root, [wanted], ["imgs/*.jpg"])
    assert files.sent["/imgs.zip"] == [len(SET) - have]
    assert (root / "imgs/2.jpg").read_bytes() == NOISE


@pytest.mark.parametrize("point", ["unpacking", "moving"])
def test_a_kill_while_unpacking_or_moving_costs_no_second_download(files, tmp_path, point):
    root = tmp_path / "mine"
    (root / "imgs").mkdir(parents=True)  # so that files are moved one by one
    wanted = offer(files, "imgs.zip", SET)
    process = start(point, root, wanted)
    assert process.wait(60) == -signal.SIGKILL, process.communicate()
    assert len(in_place(root)) == (point == "moving")
    if point == "moving":  # the layout is matched by what there is, and the set is not whole
        assert bring("mine", root, [wanted], ["imgs/*.jpg"]).status == "downloaded"
    bring("mine", root, [wanted], ["imgs/*.jpg"])
    assert {name: (root / name).read_bytes() for name in in_place(root)} == IMAGES
    assert files.gets() == ["/imgs.zip"]
    assert {path.name for path in (root / ".fetch").iterdir()} == {"fetched.json", "lists", "lock"}


def test_of_two_processes_one_waits_and_finds_it_done(files, tmp_path, capsys):
    wanted = offer(files, "imgs.zip", SET)
    files.slow["/imgs.zip"] = 0.05
    process = start("", tmp_path / "mine", wanted)
    deadline = time.monotonic() + 60
    while not files.gets():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert bring("mine", tmp_path / "mine", [wanted], ["imgs/*.jpg"]).status == "present"
    assert "waiting for it" in capsys.readouterr().err
    assert process.communicate()[0].strip() == "downloaded"
    assert files.gets() == ["/imgs.zip"]


def test_a_plain_http_address_or_a_wrong_checksum_text_is_refused(files, tmp_path):
    assert "give its published `checksum`" in refused(tmp_path / "mine", Wanted(f"{files.address}/imgs.zip"))
    assert "neither md5:" in refused(tmp_path / "mine", Wanted(f"{files.address}/imgs.zip", checksum="md5:12"))
    assert "is none of https" in refused(tmp_path / "mine", Wanted("ftp://x/imgs.zip"))
    assert "is no address" in refused(tmp_path / "mine", Wanted("https://[x/imgs.zip"))
    for into in ("../up", "./.fetch/x"):
        assert "would lie outside" in refused(tmp_path / "mine", offer(files, "imgs.zip", SET, into=into))


def test_a_machine_without_network_says_so(files, tmp_path, monkeypatch):
    assert "not reachable" in refused(tmp_path / "mine", Wanted("http://127.0.0.1:9/i.zip", checksum="md5:" + "0" * 32))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused(tmp_path / "other", offer(files, "imgs.zip", SET))
    assert not (tmp_path / "other").exists()
    assert not files.asked


@pytest.fixture
def resolvers(files, monkeypatch):
    """Answer for doi.org, zenodo.org and api.figshare.com from the local server; pooch reads the answers."""
    pytest.importorskip("pooch")
    import requests

    real = requests.get
    pages = {"10.5281/zenodo.77": "https://zenodo.org/records/77", "10.1/nowhere": "https://example.org/x"}

    def get(url: str, **settings):
        if url.startswith("https://doi.org/"):
            doi = url.removeprefix("https://doi.org/")
            answer = real(files.address + "/missing", **settings)
            answer.status_code = 404 if doi == "10.1/unknown" else 200
            answer.url = pages.get(doi, f"{files.address}/dataset.xhtml?persistentId=doi:{doi}")
            return answer
        for host in ("https://zenodo.org", "https://api.figshare.com", "https://example.org"):
            url = url.replace(host, files.address if host != "https://example.org" else f"{files.address}/none")
        return real(url, **settings)

    monkeypatch.setattr(requests, "get", get)


@pytest.mark.usefixtures("resolvers")
def test_a_zenodo_record_is_listed_with_sizes_and_md5(files, tmp_path):
    files.zenodo({"pathmnist.npz": b"small", "pathmnist_64.npz": b"larger", "breastmnist.npz": b"other"})
    wanted = Wanted("doi:10.5281/zenodo.77", files=("pathmnist_64.npz",))
    assert bring("mine", tmp_path / "mine", [wanted], ["pathmnist_64.npz"]).size == len(b"larger")
    assert in_place(tmp_path / "mine") == ["pathmnist_64.npz"]
    files.plain["/api/records/77/files/breastmnist.npz/content"] = b"Other"
    wrong = Wanted("doi:10.5281/zenodo.77", files=("breast*.npz",))
    assert "does not have the published hash" in refused(tmp_path / "other", wrong, ("*.npz",))


@pytest.mark.usefixtures("resolvers")
def test_a_record_without_a_file_of_the_pattern_lists_what_it_has(files, tmp_path):
    files.zenodo({"pathmnist.npz": b"small"})
    message = refused(tmp_path / "mine", Wanted("doi:10.5281/zenodo.77", files=("pathmnist.npz", "*.zip")))
    assert "has no file *.zip. It has: pathmnist.npz" in message
    files.plain["/api/records/77"] = b'{"status": 403, "message": "restricted"}'
    assert "without a list of files" in refused(tmp_path / "mine", Wanted("doi:10.5281/zenodo.77"))
    assert "none of Zenodo, figshare and Dataverse" in refused(tmp_path / "mine", Wanted("doi:10.1/nowhere"))
    assert "answers 404" in refused(tmp_path / "mine", Wanted("doi:10.1/unknown"))


@pytest.mark.usefixtures("resolvers")
def test_a_figshare_article_is_taken_in_the_version_of_its_doi(files, tmp_path):
    files.figshare({"PapilaDB.zip": SET})
    bring("mine", tmp_path / "mine", [Wanted("doi:10.6084/m9.figshare.55.v2")], ["imgs/*.jpg"])
    assert in_place(tmp_path / "mine") == ["imgs/1.jpg", "imgs/2.jpg"]
    assert "/v2/articles/55/versions/2" in files.gets()


@pytest.mark.usefixtures("resolvers")
def test_a_dataverse_table_comes_as_it_was_uploaded_and_two_zips_into_one_folder(files, tmp_path):
    parts = {"part_1.zip": zipped({"1.jpg": b"one"}), "part_2.zip": zipped({"2.jpg": b"two"}), "extra/x.zip": SET}
    files.dataverse(parts, {"metadata.tab": ("metadata.csv", b"id,dx\n1,nv\n")})
    wanted = [
        Wanted("doi:10.7910/DVN/X", files=("part_*.zip",), into="imgs"),
        Wanted("doi:10.7910/DVN/X", files=("metadata.tab", "extra/*.zip"), unpack=False),
    ]
    bring("mine", tmp_path / "mine", wanted, ["imgs/*.jpg", "metadata.csv"])
    assert in_place(tmp_path / "mine") == ["extra/x.zip", "imgs/1.jpg", "imgs/2.jpg", "metadata.csv"]
    assert (tmp_path / "mine/metadata.csv").read_bytes() == b"id,dx\n1,nv\n"


def test_a_dataset_of_the_hub_comes_straight_into_the_root(files, tmp_path, monkeypatch):
    hub = Hub()
    server = hub.serve()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        hub.address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    made = hub.add_folder("owner/slake", tmp_path, kind="dataset")
    made.files |= {"train.json": b"[]", "imgs.zip": SET, "data/train-00000.parquet": NOISE}
    wanted = Wanted("hub:owner/slake", files=("train.json", "imgs.zip", "data/*.parquet"))
    made.files["odd/a:b.jpg"] = b"odd"
    try:
        assert "'odd/a:b.jpg'" in refused(tmp_path / "other", Wanted("hub:owner/slake"))
        bring("mine", tmp_path / "mine", [wanted], ["imgs/*.jpg", "data/*.parquet", "train.json"])
    finally:
        server.shutdown()
    assert in_place(tmp_path / "mine") == ["data/train-00000.parquet", "imgs/1.jpg", "imgs/2.jpg", "train.json"]
    notes = json.loads((tmp_path / "mine/.fetch/fetched.json").read_text())["files"].values()
    assert {note["origin"] for note in notes} == {"c" * 40}
    # The same without a server: all is here.
    assert bring("mine", tmp_path / "mine", [wanted], ["imgs/*.jpg"]).status == "present"


YAML = """# Fetched from a local server. Used by: tests
defaults:
  - /schema/domain/published@_here_

name: {name}
title: A set of {name}
modality: radiograph
reader: chexpert
root: ${{oc.env:VLMBENCH_DATA,data}}/{name}
tasks: [{task}]
licence: CC BY 4.0
access: {access}
how_to_get: Write to the owners
layout: [{layout}]
rules:
  study: {{column: a, map: {{"*": b}}, labels: [b, c]}}
{more}
"""


def write(
    folder: Path, name: str, layout: str, more: str = "", task: str = "diagnosis", access: str = "public"
) -> None:
    text = YAML.format(name=name, layout=layout, more=more, task=task, access=access)
    (folder / "conf/domain").mkdir(parents=True, exist_ok=True)
    (folder / f"conf/domain/{name}.yaml").write_text(text)


def downloads(*wanted: Wanted, when: str = "{}") -> str:
    lines = [f"  - {{source: '{one.source}', checksum: '{one.checksum}', when: {when}}}" for one in wanted]
    return "\n".join(["downloads:", *lines])


def test_the_command_brings_what_is_named_and_the_status_is_1_if_anything_is_missing(files, tmp_path, command):
    write(tmp_path, "open", "imgs/*.jpg", downloads(offer(files, "imgs.zip", SET)), task="vqa")
    write(tmp_path, "gone", "imgs/*.jpg", downloads(offer(files, "gone.zip", SET)))
    del files.plain["/gone.zip"]
    conf = ["--config-dir", str(tmp_path / "conf")]
    status, out, err = command("fetch", *conf, "domain=open")
    assert status == 0, err
    assert f"open: downloaded, 1 file, {len(SET) / 1024:.1f} KiB, in {tmp_path / 'open'}" in out
    status, out, err = command("fetch", *conf, "-m", "domain=open,gone,phantom_oct")
    assert status == 1
    assert "open: present, in" in out
    assert f"gone: missing, in {tmp_path / 'gone'}" in out
    assert "phantom_oct: made on this machine, nothing to fetch" in out
    (told,) = [line for line in err.splitlines() if line.startswith("vlmbench: ")]
    assert told.startswith("vlmbench: gone: The server answers 404 for")
    assert "Traceback" not in err


def test_a_gated_set_is_told_with_its_layout_until_it_is_complete(files, tmp_path, command):
    write(tmp_path, "asked", "train.csv, 'train/*.jpg'", access="gated")
    conf = ["--config-dir", str(tmp_path / "conf")]
    (tmp_path / "asked").mkdir()
    (tmp_path / "asked/train.csv").write_text("a\n")
    status, out, err = command("fetch", *conf, "domain=asked")
    assert status == 1
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[:5] == [
        "asked: A set of asked, gated, CC BY 4.0",
        "to get it Write to the owners",
        f"folder {tmp_path / 'asked'}",
        "present train.csv",
        "missing train/*.jpg",
    ]
    assert "1 of 2 parts of its layout are missing" in err
    (tmp_path / "asked/train").mkdir()
    (tmp_path / "asked/train/1.jpg").write_bytes(b"x")
    status, out, err = command("fetch", *conf, "domain=asked")
    assert (status, err) == (0, "")
    assert "missing" not in out


def test_settings_choose_among_downloads_and_another_size_is_brought_beside_the_first(files, tmp_path, command):
    more = downloads(offer(files, "m_28.npz", b"28"), when="{size: 28}")
    more += downloads(offer(files, "m_224.npz", b"224"), when="{size: [128, 224]}, gib: 2").removeprefix("downloads:")
    write(tmp_path, "sized", "'m_*.npz'", more + "\nsettings: {size: 28}")
    conf = ["--config-dir", str(tmp_path / "conf")]
    assert command("fetch", *conf, "domain=sized")[0] == 0
    assert in_place(tmp_path / "sized") == ["m_28.npz"]
    assert command("fetch", *conf, "domain=sized", "domain.settings.size=224")[0] == 0
    assert in_place(tmp_path / "sized") == ["m_224.npz", "m_28.npz"]
    status, _, err = command("fetch", *conf, "domain=sized", "domain.settings.size=64")
    assert status == 1  # whatever of another size is there
    assert "sized: for size=64 nothing is published, but for size=28; size=[128, 224]" in err
    assert facts("sized", named_domain("sized", conf[1]))["fetch"]
    assert facts("sized", named_domain("sized", conf[1], ["settings.size=224"]))["download_gib"] == 2
    assert not facts("sized", named_domain("sized", conf[1], ["settings.size=64"]))["fetch"]
    assert needed({}, {})
    assert not needed({"size": 28}, {})


def test_what_was_downloaded_and_lies_elsewhere_than_the_layout_says_is_named(files, tmp_path):
    with pytest.raises(UserError, match="nothing there matches train/"):
        bring("mine", tmp_path / "mine", [offer(files, "imgs.zip", SET)], ["train/*.jpg", "imgs/*.jpg"])


def test_two_domains_may_share_a_folder(files, tmp_path):
    root = tmp_path / "shared"
    bring("one", root, [offer(files, "one.zip", zipped({"one/a.csv": b"1", "readme": b"1"}))], ["one/*.csv"])
    (root / "two").mkdir()
    (root / "two/b.csv").write_bytes(b"2")
    two = offer(files, "two.zip", zipped({"two/b.csv": b"2", "readme": b"2"}))
    asked = len(files.asked)
    assert bring("two", root, [two], ["two/*.csv"]).status == "present"
    assert len(files.asked) == asked
    (root / "two/b.csv").unlink()
    with pytest.raises(UserError, match="readme is there already"):  # of the other domain, which needs it
        bring("two", root, [two], ["two/*.csv"])


def test_many_files_are_one_progress(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("vlmbench.obtain.meter._FEW", 2)
    wanted = [offer(files, f"{i}.jpg", bytes(100)) for i in range(5)]
    bring("mine", tmp_path / "mine", wanted, ["*.jpg"])
    assert capsys.readouterr().err.splitlines() == ["mine: 500 B to download in 5 files"]
    assert threading.active_count() < 50
