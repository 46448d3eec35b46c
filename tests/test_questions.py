"""Questions written by a hosted model, against a real HTTP server on this machine."""

import csv
import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from miniatures.fairvlmed_vqa import make

from vlmbench.asking import ask as ask_module
from vlmbench.asking.ask import Note, Writer
from vlmbench.asking.recipe import Question, UnusableReplyError, misfit, read_recipe, row_seed, stated_answers
from vlmbench.catalogue.read import named_domain
from vlmbench.cell.domain import build_domain
from vlmbench.hosted import endpoint as endpoint_module
from vlmbench.hosted.answers import AnswerCache
from vlmbench.hosted.endpoint import Endpoint

KEY, KEY_ENV = "sk-test-81b7c0ffee5d2e90", "VLMBENCH_TEST_KEY"
IMAGES = 39  # of the miniature that have a summary


class Server(ThreadingHTTPServer):
    """Writes questions as the recipe asks for them, unless told otherwise.

    Attributes:
        faults: What befalls the next requests: a status, or the text of a reply.
        rule: From a request's JSON to the text of the reply; None takes a good one.
        bodies: Every request's JSON.
        delay: Seconds that each answer takes.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults, self.bodies, self.keys, self.rule, self.delay, self.answered = [], [], [], good, 0.0, 0
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def asked(self):
        return Counter(hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest() for body in self.bodies)


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: else the second waits 40 ms for the first one's acknowledgement

    def log_message(self, *_):
        """Say nothing."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.keys.append(self.headers["Authorization"])
            fault = self.server.faults.pop(0) if self.server.faults else None
        time.sleep(self.server.delay)
        status = fault if isinstance(fault, int) else 200
        text = fault if isinstance(fault, str) else self.server.rule(body)
        finish, message = "stop", {"role": "assistant", "content": text}
        if fault == "declined":
            finish, message = "content_filter", {"role": "assistant", "content": None}
        completion = {
            "model": f"{body['model']}-2025",
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {"prompt_tokens": 300, "completion_tokens": 40},
        }
        data = json.dumps(completion if status == 200 else {"error": {"message": "later"}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        with self.server.lock:
            self.server.answered += 1


def reply(stated, question="Does the optic disc look glaucomatous?", answer="", **over):
    asked = {"question": f"What does the rim of the disc {answer}look like?", "answer": "thin"}
    return json.dumps({"open": asked, "closed": {"question": question, "answer": stated}, **over})


def stated_in(body):
    (stated,) = re.findall(r'whose right answer is "(\w+)"', body["messages"][1]["content"])
    return stated


def good(body):
    return reply(stated_in(body))


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(endpoint_module, "FIRST_WAIT", 0.01)
    running = Server()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "fairvlmed"
    folder.mkdir()
    make(folder, questions=False)
    return folder


@pytest.fixture
def arguments(server, root, tmp_path):
    def with_more(*more):
        where = [f"model.base_url={server.url}", f"model.cache={tmp_path / 'answers'}", f"domain.root={root}"]
        return ["model=hosted_local", "model.source=writer", *where, *more]

    return with_more


def rows_of(folder, split="test"):
    with (folder / f"vqa_{split}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def account(folder):
    return json.loads((folder / "questions.json").read_text())


def tables(folder):
    return {path.name: path.read_text() for path in sorted(folder.glob("vqa_*.csv"))}


# ------------------------------------------------------------------------------------------------------ the whole way


def test_the_questions_are_written_and_the_domain_reads_them(server, root, arguments, command):
    status, out, err = command("questions", *arguments("seed=3"))
    assert status == 0, err
    assert "test       11 images, 11 open and 11 closed questions (6 yes, 5 no)" in out
    assert len(server.bodies) == IMAGES
    for split, images in (("train", 23), ("validation", 5), ("test", 11)):
        rows = rows_of(root, split)
        assert list(rows[0]) == ["image_path", "question", "answer", "question type"]
        assert Counter(row["question type"] for row in rows) == {"OPEN": images, "CLOSED": images}
        answers = Counter(row["answer"] for row in rows if row["question type"] == "CLOSED")
        assert answers["yes"] == (images + 1) // 2
        assert answers["no"] == images // 2
        assert all((root / row["image_path"]).is_file() for row in rows)
    told = account(root)
    assert (told["seed"], told["model"], told["endpoint"], told["recipe"]) == (3, "writer", server.url, 1)
    assert told["images_without_text"] == 3
    assert told["usage"]["paid"] == {"answers": IMAGES, "input_tokens": 300 * IMAGES, "output_tokens": 40 * IMAGES}
    assert told["usage"]["models"] == {"writer-2025": IMAGES}
    for name, text in tables(root).items():
        assert told["sha256"][name] == hashlib.sha256(text.encode()).hexdigest()

    for split in ("study", "ours"):
        domain = build_domain(named_domain("fairvlmed_vqa", None, [f"root={root}", f"split={split}"]), "vqa")
        whole = {"examples": 22, "images": 11, "groups": 11, "type:closed": 11, "type:open": 11}
        assert domain.counts()["test"] == whole
        assert domain.left_out == []


def test_what_is_sent_is_the_recipe_with_a_seed_of_its_own_and_no_image(server, root, arguments, command, monkeypatch):
    monkeypatch.setenv(KEY_ENV, KEY)
    status, _, err = command("questions", *arguments("limit=2", f"model.api_key_env={KEY_ENV}", "max_tokens=99"))
    assert status == 0, err
    assert len(server.bodies) == 6
    assert set(server.keys) == {f"Bearer {KEY}"}
    recipe = read_recipe()
    for body in server.bodies:
        assert [message["role"] for message in body["messages"]] == ["system", "user"]
        assert body["messages"][0]["content"] == recipe.instructions
        assert "y/o patient" in body["messages"][1]["content"]
        assert (body["temperature"], body["max_completion_tokens"]) == (0, 99)
    seeds = {body["seed"] for body in server.bodies}
    assert len(seeds) == 6
    images = {row["image_path"] for split in ("train", "validation", "test") for row in rows_of(root, split)}
    assert seeds == {row_seed(0, image, 0) for image in images}
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_model_that_takes_no_temperature_is_sent_none(server, arguments, command):
    status, _, err = command("questions", *arguments("limit=1", "model.settings.temperature=null"))
    assert status == 0, err
    assert not any("temperature" in body for body in server.bodies)


def test_the_same_seed_gives_the_same_tables_and_another_one_others(server, root, arguments, command, tmp_path):
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        cache = f"model.cache={tmp_path / name}-answers"
        more = (f"seed={seed}", f"output={tmp_path / name}", cache, f"model.concurrency={seed + 1}")
        status, _, err = command("questions", *arguments(*more))
        assert status == 0, err
    one, two, three = (tables(tmp_path / name) for name in ("one", "two", "three"))
    assert len(one) == 3
    assert one == two
    assert one != three
    assert len(server.bodies) == 3 * IMAGES


# -------------------------------------------------------------------------------------------------- replies of no use

BAD = {
    "no JSON": "Sure! Here are two questions.",
    "text around it": f"Here you are: {reply('yes')}",
    "a list": "[1, 2]",
    "one question": json.dumps({"open": {"question": "What is seen here?", "answer": "a disc"}}),
    "more keys": reply("yes", note="extra"),
    "a key twice": '{"open": 1, "open": 2, "closed": 3}',
    "another key": json.dumps({"open": {"q": "?", "a": "x"}, "closed": {"question": "Is it red?", "answer": "yes"}}),
    "a number": json.dumps({"open": {"question": "How many?  ", "answer": 3}, "closed": {}}),
    "no question": reply("yes", question=""),
    "neither yes nor no": reply("maybe"),
    "yes in capitals": reply("Yes"),
    "a sentence": reply("yes, it does"),
    "an answer that is too long": reply("yes", open={"question": "What is seen?", "answer": "x" * 201}),
    "an open yes": reply("yes", open={"question": "Is anything seen?", "answer": "Yes."}),
    "an open nothing": reply("yes", open={"question": "What is seen there?", "answer": "N/A"}),
    "nesting": "[" * 100_000,
    "half a surrogate": reply("yes", answer="\ud800 "),
    "a control character": reply("yes", "Is the disc \0 pale?"),
    "a thought without an end": f"<think>{reply('yes')}",
    "two thoughts": f"<think></think><think></think>{reply('yes')}",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_a_reply_of_another_form_is_of_no_use(text):
    with pytest.raises(UnusableReplyError):
        read_recipe().read(text, "yes")


def test_a_good_reply_may_stand_in_a_fence_or_after_a_thought_and_loses_its_white_space():
    spaced = reply("no", open={"question": " What  is\nseen? ", "answer": " a disc "})
    fenced = (f"```json\n{spaced}\n```", f"\n```\n{spaced}\n```\n", f"```JSON{spaced}```")
    for text in (spaced, *fenced, f"<think>\nIt says {{so}}.\n</think>\n{spaced}", f"<think></think>{fenced[0]}"):
        asked, closed = read_recipe().read(text, "no")
        assert asked == Question("What is seen?", "a disc")
        assert closed.answer == "no"
    with pytest.raises(UnusableReplyError, match="not the one asked for"):
        read_recipe().read(spaced, "yes")


def test_a_reply_of_no_use_is_asked_again_with_the_next_seed_and_then_left_out(server, root, arguments, command):
    first: list[str] = []
    second: list[str] = []

    def rule(body):
        (name,) = re.findall(r"The (\d+) y/o", body["messages"][1]["content"])
        if not first or name in first:
            first.append(name)
            return "I cannot help with that."
        if not second:
            second.append(body["messages"][1]["content"])
            return "{"
        return good(body)

    server.rule = rule
    status, out, err = command("questions", *arguments("attempts=3", "model.concurrency=1"))
    assert status == 0, err
    lost = len({body["messages"][1]["content"] for body in server.bodies if f"The {first[0]} y/o" in str(body)})
    assert len(first) == 3 * lost
    retried = [body["seed"] for body in server.bodies if body["messages"][1]["content"] in second]
    assert len(retried) == 2
    assert len(set(retried)) == 2
    assert len({body["seed"] for body in server.bodies}) == len(server.bodies)
    told = account(root)
    assert told["unusable_replies"] == {"not one JSON object": len(first) + 1}
    assert told["images_left_out"] == {"not one JSON object": lost}
    assert sum(told["splits"][split].get("images_left_out", 0) for split in told["splits"]) == lost
    assert sum(len(rows_of(root, split)) for split in ("train", "validation", "test")) == 2 * (IMAGES - lost)
    assert "images left out: not one JSON object" in out


def test_faults_that_pass_and_a_refusal_are_asked_again(server, root, arguments, command):
    server.faults = [429, 500, "declined", 503, "Sorry."]
    status, _, err = command("questions", *arguments("model.concurrency=1"))
    assert status == 0, err
    told = account(root)
    assert told["usage"]["retried"] == {"status 429": 1, "status 500": 1, "status 503": 1}
    assert told["unusable_replies"] == {"declined": 1, "not one JSON object": 1}
    assert told["images_left_out"] == {}
    assert len(server.bodies) == IMAGES + 5


def test_a_model_that_cannot_do_it_ends_the_run_before_all_is_paid_for(server, root, arguments, command):
    server.rule = lambda body: "I am a teapot."
    status, out, err = command("questions", *arguments("attempts=2", "model.concurrency=2"))
    assert status == 2
    assert out == ""
    for word in (
        "20 of 20 images got no usable reply",
        "not one JSON object",
        "I am a teapot",
        "attempts",
        "is kept in",
    ):
        assert word in err
    assert "Traceback" not in err
    assert len(server.bodies) < 50
    assert not list(root.glob("vqa_*")) + list(root.glob("questions.json"))


def test_a_key_that_is_refused_ends_the_run_and_is_told_nowhere(
    server, root, arguments, command, monkeypatch, tmp_path
):
    monkeypatch.setenv(KEY_ENV, KEY)
    server.faults = [401] * 99
    status, out, err = command("questions", *arguments(f"model.api_key_env={KEY_ENV}", "model.concurrency=1"))
    assert status == 2
    assert "401" in err
    assert KEY not in out + err
    assert len(server.bodies) == 1
    assert not list(root.glob("vqa_*"))
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


# ---------------------------------------------------------------------------------------- what no image shows, balance


@pytest.mark.parametrize(
    ("text", "topic"),
    [
        ("How old is the patient?", "age"),
        ("Is the patient FEMALE?", "sex"),
        ("What is the IOP of the right eye?", "pressure"),
        ("Is the intraocular pressure raised?", "pressure"),
        ("Is there a family history of glaucoma?", "history"),
        ("Was latanoprost given?", "medication"),
        ("Which medications are used?", "medication"),
        ("Has the eye been treated?", "treatment"),
        ("Do visual fields show a nasal step?", "other examinations"),
        ("What does the note say of the disc?", "source"),
        ("Is the vertical cup-to-disc ratio enlarged?", ""),
        ("Is a scar of old toxoplasmosis seen in the image?", ""),
        ("Does the scanning laser image show a disc haemorrhage?", ""),
        ("Is the macula of average brightness in this photograph?", ""),
        ("Is the pigment epithelium atrophic, or is management of light uneven?", "treatment"),
    ],
)
def test_questions_about_what_no_image_shows_are_told_by_their_words(text, topic):
    recipe = read_recipe()
    assert recipe.unseen_topic(Question(text, "yes")) == topic
    if topic:
        assert recipe.unseen_topic(Question("What is seen?", text)) == topic


def test_such_questions_are_left_out_and_counted_and_the_others_of_the_image_stay(server, root, arguments, command):
    server.rule = lambda body: reply(stated_in(body), "Is the patient older than 60 years of age?")
    server.faults = [reply("yes", answer="under this pressure "), reply("no", answer="under this pressure ")]
    status, out, err = command("questions", *arguments("model.concurrency=1"))
    assert status == 0, err
    told = account(root)
    assert told["questions_left_out"]["age"] == IMAGES - 1
    assert told["questions_left_out"]["pressure"] == 1
    assert sum(told["splits"][split]["open"] for split in told["splits"]) == IMAGES - 1
    assert sum(told["splits"][split].get("closed", 0) for split in told["splits"]) == 1
    assert "questions left out, about what no image shows: age 38, pressure 1" in out


def test_a_model_that_always_says_yes_is_told(server, root, arguments, command, monkeypatch):
    monkeypatch.setattr(ask_module, "ENOUGH_TO_JUDGE", 1000)  # half of its replies are of no use, which may end a run
    server.rule = lambda body: reply("yes")
    status, out, err = command("questions", *arguments("attempts=1"))
    assert status == 0, err
    assert "(12 yes, 0 no): NOT BALANCED, 100% have one and the same answer" in out
    assert account(root)["images_left_out"] == {"the closed answer is not the one asked for": 18}
    status, out, err = command("questions", *arguments("limit=1", "overwrite=true"))
    assert status == 0, err
    assert "(1 yes, 0 no)" in out
    assert "NOT BALANCED" not in out


def test_yes_and_no_are_asked_for_alike_whatever_the_order():
    names = [f"{number}.npz" for number in range(1001)]
    stated = stated_answers(names, 7)
    assert Counter(stated.values()) == {"yes": 501, "no": 500}
    assert stated_answers(names[::-1], 7) == stated
    assert stated_answers(names, 8) != stated
    runs = [stated[a] == stated[b] for a, b in itertools.pairwise(names)]
    assert 400 < sum(runs) < 600, "the answer must not follow from the number of the image"


def test_the_schema_is_that_of_the_recipe():
    schema = read_recipe().schema
    assert misfit(json.loads(reply("yes")), schema) == ""
    assert misfit(json.loads(reply("maybe")), schema) == "answer of closed of the reply is none of yes, no"
    assert "exactly the keys open, closed" in misfit({}, schema)


# ------------------------------------------------------------------------------------------- killed, and again


NOTHING_HEAVY = """
import sys
from vlmbench.questions import main
main()
print("HEAVY", sorted({"torch", "lightning", "transformers"} & set(sys.modules)))
"""


def test_a_run_that_is_killed_goes_on_without_asking_twice_or_importing_torch(server, root, arguments, command):
    server.delay = 0.1
    more = arguments("model.concurrency=2")
    process = subprocess.Popen(
        [sys.executable, "-m", "vlmbench.questions", *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while server.answered < 8 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    time.sleep(0.3)
    before, server.delay = len(server.bodies), 0.0
    assert 8 <= before < IMAGES
    assert tables(root) == {}
    ran = subprocess.run([sys.executable, "-c", NOTHING_HEAVY, *more], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "HEAVY []"
    twice = [times for times in server.asked.values() if times > 1]
    assert len(twice) <= 2, "more than were in flight at the kill"
    assert len(server.asked) == IMAGES
    assert account(root)["usage"]["cached"]["answers"] >= before - 2

    made = tables(root)
    status, out, err = command("questions", *more)
    assert status == 0, err
    assert len(server.bodies) == IMAGES + len(twice)
    assert f"0 answers paid (0 tokens in, 0 out), {IMAGES} kept ones used" in out
    assert tables(root) == made


def test_an_endpoint_that_fails_leaves_what_was_there_and_keeps_the_answers(server, root, arguments, command):
    status, _, err = command("questions", *arguments("limit=3", "model.concurrency=1"))
    assert status == 0, err
    made = tables(root)
    server.faults = [404] * 99
    status, _, err = command("questions", *arguments("model.concurrency=1", "overwrite=true"))
    assert status == 2
    assert "404" in err
    assert "is kept in" in err
    assert tables(root) == made


def test_the_time_left_is_counted_from_what_has_to_be_asked(server, tmp_path, monkeypatch):
    shown: list[tuple] = []

    class Seen:
        def __init__(self, doing, total, done=0):
            shown.append(("start", total, done))

        def update(self, done):
            shown.append(("update", done))

        def close(self):
            shown.append(("close",))

    monkeypatch.setattr(ask_module, "Countdown", Seen)

    def writer():
        return Writer(Endpoint(server.url), AnswerCache(tmp_path / "kept"), "writer", read_recipe(), concurrency=1)

    notes = [Note("train", f"{number}.npz", "A thin rim.", "yes") for number in range(6)]
    writer().write(notes[:4])
    assert shown[0] == ("start", 4, 0)
    shown.clear()
    writer().write(notes)
    assert shown[0] == ("start", 6, 4)
    shown.clear()
    writer().write(notes)
    assert shown == []


def test_a_trial_is_balanced_and_what_it_paid_for_is_not_paid_for_again(server, root, arguments, command, tmp_path):
    status, _, err = command("questions", *arguments("limit=4", f"output={tmp_path / 'trial'}"))
    assert status == 0, err
    assert account(tmp_path / "trial")["splits"]["train"] == {"closed": 4, "images": 4, "no": 2, "open": 4, "yes": 2}
    assert {row["image_path"] for row in rows_of(tmp_path / "trial")} != {
        f"Test/data_{n:05d}.npz" for n in range(31, 35)
    }
    status, _, err = command("questions", *arguments())
    assert status == 0, err
    assert len(server.bodies) == len(server.asked) == IMAGES
    assert account(root)["usage"]["cached"]["answers"] == 12


# ------------------------------------------------------------------------------------------- before anything is asked


def test_notes_leave_this_machine_by_consent_alone(server, arguments, command):
    for address in ("https://api.example.com/v1", "http://10.0.0.7:8000/v1"):
        status, out, err = command("questions", *arguments(f"model.base_url={address}"))
        assert status == 2
        assert out == ""
        for word in ("leave this machine", "agreement", "consent=true"):
            assert word in err
        assert len(err.strip().splitlines()) == 1
    assert server.bodies == []


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        (["model=tiny_llava"], ["model=tiny_llava is not behind an endpoint", "hosted_local"]),
        (["domain=chexpert"], ["domain='chexpert'", "fairvlmed_vqa"]),
        (["domain.root=/no/such/folder"], ["domain.root='/no/such/folder' is not a folder"]),
        (["column=summary"], ["no column 'summary'", "gpt4_summary"]),
        (["attempts=0"], ["attempts=0", "between 1 and 20"]),
        (["model.api_key_env=NO_SUCH_VARIABLE"], ["NO_SUCH_VARIABLE", "is not set"]),
        (["+model.settings.api_key=abc"], ["looks like a credential"]),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_asked(server, arguments, command, mistake, expected):
    given = arguments()
    if mistake[0].startswith("model=t"):
        given = [part for part in given if not part.startswith("model")]
    if mistake[0].startswith("domain=c"):
        given = [part for part in given if not part.startswith("domain")]
    status, out, err = command("questions", *given, *mistake)
    assert status == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    for word in expected:
        assert word in err
    assert server.bodies == []


def test_an_image_that_is_not_there_is_found_out_before_anything_is_asked(server, root, arguments, command):
    os.remove(root / "Test" / "data_00031.npz")
    status, _, err = command("questions", *arguments())
    assert status == 2
    assert "1 of 39 images" in err
    assert "Test/data_00031.npz" in err
    assert server.bodies == []


def test_a_folder_that_cannot_be_written_is_found_out_before_anything_is_asked(server, arguments, command, tmp_path):
    (tmp_path / "file").write_text("")
    for output in ("file", "file/below"):
        status, _, err = command("questions", *arguments(f"output={tmp_path / output}"))
        assert status == 2
        assert f"{tmp_path / 'file'} is no folder. Nothing was asked" in err
    assert server.bodies == []


def test_tables_of_ones_own_or_of_other_questions_are_not_replaced_unasked(server, root, arguments, command, tmp_path):
    (root / "vqa_test.csv").write_text("mine")
    status, _, err = command("questions", *arguments())
    assert status == 2
    assert "questions of your own" in err
    assert (root / "vqa_test.csv").read_text() == "mine"
    assert server.bodies == []
    status, _, err = command("questions", *arguments("overwrite=true", "seed=1", "limit=3"))
    assert status == 0, err
    status, _, err = command("questions", *arguments("seed=2", "limit=3"))
    assert status == 2
    assert "other questions: seed differ" in err
    assert account(root)["seed"] == 1
    with (root / "vqa_test.csv").open("a") as file:
        file.write("Test/data_00031.npz,What does an eye doctor see?,a disc,OPEN\n")
    status, _, err = command("questions", *arguments("seed=1", "limit=3"))
    assert status == 2
    assert "vqa_test.csv changed after it was written" in err
    assert "eye doctor" in (root / "vqa_test.csv").read_text()
