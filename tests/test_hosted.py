"""Hosted models, against a real HTTP server on this machine with a tiny model behind it and faults by script."""

import base64
import hashlib
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image

from vlmbench.backbones.base import Turn
from vlmbench.backbones.loaders import load
from vlmbench.hosted import endpoint as endpoint_module
from vlmbench.hosted.answers import Answer, AnswerCache, parse
from vlmbench.hosted.endpoint import Endpoint, HostedError, read_answer, retry_after
from vlmbench.hosted.model import HostedVlm
from vlmbench.tuning.tuners import Lora
from vlmbench.weights.source import ASSETS

KEY = "sk-test-3f9c1e77d2b84a06"
KEY_ENV = "VLMBENCH_TEST_KEY"


class Server(ThreadingHTTPServer):
    """`/v1/chat/completions` on a free port of the loopback address.

    Attributes:
        faults: What befalls the next requests, first come first served; then come answers.
        asked: Digest of each request's question, in order.
        most: Most requests that were there at the same time.
        delay: Seconds that each answer takes.
        model: Answers; None says `yes` to everything.
        adapted: Answers in its place to other names, as vLLM's `--lora-modules NAME=FOLDER` does.
        answer_with: Put over the completion's JSON of every answer.
    """

    daemon_threads = True

    def __init__(self, model=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults, self.asked, self.times, self.bodies, self.keys = [], [], [], [], []
        self.now = self.most = self.answered = 0
        self.delay, self.model, self.answer_with = 0.0, model, {}
        self.adapted = {}
        self.lock, self.thinking = threading.Lock(), threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Say nothing."""

    def do_POST(self):
        server = self.server
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        body = json.loads(raw)
        with server.lock:
            server.asked.append(hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest())
            server.times.append(time.monotonic())
            server.bodies.append({**body, "path": self.path})
            server.keys.append(self.headers["Authorization"])
            fault = server.faults.pop(0) if server.faults else None
            server.now += 1
            server.most = max(server.most, server.now)
        time.sleep(server.delay)
        with server.lock:
            server.now -= 1
        if fault == "timeout":
            time.sleep(1.5)
        if fault in ("timeout", "reset"):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return self.connection.close()  # with nothing sent and no farewell
        if isinstance(fault, tuple):
            return self.reply(*fault)
        text = answer_of(server, body)
        message = {"role": "assistant", "content": text}
        completion = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": f"{body['model']}-2025",
            "system_fingerprint": "fp_1",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 70, "completion_tokens": 3, "total_tokens": 73},
            **server.answer_with,
        }
        self.reply(200, json.dumps(completion))
        with server.lock:
            server.answered += 1

    def reply(self, status, text, headers=()):
        data = text.encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | dict(headers)).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def answer_of(server, body):
    model = server.adapted.get(body["model"], server.model)
    if model is None:
        return "yes"
    (content,) = (message["content"] for message in body["messages"] if message["role"] == "user")
    parts = {part["type"]: part for part in content}
    encoded = parts["image_url"]["image_url"]["url"].removeprefix("data:image/png;base64,")
    image = Image.open(io.BytesIO(base64.b64decode(encoded)))
    with server.thinking:
        turn = Turn(model.preprocess(image), parts["text"]["text"])
        batch = model.collate([turn], supervise=False)
        (text,) = model.generate(batch, max_new_tokens=body["max_completion_tokens"])
    return text


@pytest.fixture(scope="module")
def llava():
    return load("hf_vlm", str(ASSETS / "tiny_llava"), dtype=torch.float32, answer_prefix=" ", max_length=256).eval()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Server()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(endpoint_module, "FIRST_WAIT", 0.01)


@pytest.fixture
def hosted(server, tmp_path, monkeypatch):
    """Return a function that makes a hosted model at the server."""
    monkeypatch.setenv(KEY_ENV, KEY)

    def make(retries=4, timeout=1.0, **settings):
        asked = Endpoint(server.url, KEY_ENV, timeout=timeout, retries=retries)
        return HostedVlm(asked, AnswerCache(tmp_path / "answers"), "tiny", **settings)

    return make


def image(seed=0, size=(24, 20)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8))


def ask(model, count=1, max_new_tokens=8, first=0):
    turns = [Turn(model.preprocess(image()), f"question {number}?") for number in range(first, first + count)]
    return model.generate(model.collate(turns, supervise=False), max_new_tokens=max_new_tokens)


def arguments(server, tmp_path, *more):
    where = [f"model.base_url={server.url}", f"model.cache={tmp_path / 'answers'}", "model.source=tiny_llava"]
    return ["model=hosted_local", "finetune=zero_shot", *where, *more]


# ------------------------------------------------------------------------------------------------ a cell like any other


def test_the_cell_of_a_hosted_model_is_that_of_the_same_model_here(server, llava, train, command, tmp_path):
    server.model = llava
    theirs = train(*arguments(server, tmp_path), output=tmp_path / "theirs")
    assert theirs.status == 0, theirs.err
    ours = train("model=tiny_llava", "finetune=zero_shot", output=tmp_path / "ours")
    columns = ["example_id", "question", "answer", "prediction"]
    assert theirs.predictions[columns].equals(ours.predictions[columns])
    assert len(theirs.predictions) > 20
    assert theirs.predictions["prediction"].nunique() > 3
    assert "option_scores" not in theirs.predictions
    shared = [name for name in theirs.record["metrics"] if "likelihood" not in name]
    assert {name: theirs.record["metrics"][name] for name in shared} == {
        name: ours.record["metrics"][name] for name in shared
    }
    record = theirs.record
    assert record["status"] == "done"
    assert record["cost"]["parameters"] == {}
    assert record["hashes"]["weights"] == f"{server.url.removeprefix('http://')}/tiny_llava"
    assert record["environment"]["device"] == f"endpoint 127.0.0.1:{server.server_address[1]}"
    spent = record["cost"]["hosted"]
    assert spent["paid"]["answers"] + spent["cached"]["answers"] == len(theirs.predictions)
    assert spent["paid"]["input_tokens"] == 70 * spent["paid"]["answers"]
    assert spent["models"] == {"tiny_llava-2025": len(theirs.predictions)}
    assert set(spent["fingerprints"]) == {"fp_1"}
    assert {body["path"] for body in server.bodies} == {"/v1/chat/completions"}
    assert {body["temperature"] for body in server.bodies} == {0}

    asked = len(server.asked)
    assert asked == len(set(server.asked)) == spent["paid"]["answers"]
    again = train(*arguments(server, tmp_path, "seed=1"), output=tmp_path / "again")
    assert again.status == 0, again.err
    assert again.predictions["prediction"].equals(theirs.predictions["prediction"])
    assert again.record["cost"]["hosted"]["paid"]["answers"] == 0
    assert len(server.asked) == asked

    (cell,) = theirs.cells
    status, _, err = command("evaluate", f"cell={cell}", "domain=phantom_oct", "domain.patients=24")
    assert status == 0, err
    (moved,) = (cell / "transfer").rglob("record.json")
    assert json.loads(moved.read_text())["cost"]["hosted"]["paid"]["answers"] == len(server.asked) - asked > 0
    status, _, err = command("report", f"records={tmp_path}", f"output={tmp_path / 'report'}")
    assert status == 0, err
    assert "hosted_local" in (tmp_path / "report" / "report.html").read_text()


def test_an_adapter_that_is_served_by_its_name_answers_as_the_cell_that_trained_it(server, train, tmp_path):
    settings = ["finetune=lora", "finetune.scope=L", "finetune.lr=0.01", "trainer.precision=32-true"]
    tuned = train("model=tiny_llava", *settings, output=tmp_path / "tuned")
    assert tuned.status == 0, tuned.err
    saved = tuned.cells[0] / "saved"
    described = json.loads((saved / "adapter" / "adapter_config.json").read_text())
    # What vLLM refuses to serve; with finetune.scope=ML the connector is in modules_to_save.
    assert not described["modules_to_save"]
    assert not described["use_dora"]
    assert described["bias"] == "none"
    served = load("hf_vlm", str(ASSETS / "tiny_llava"), dtype=torch.float32, answer_prefix=" ", max_length=256)
    Lora("L", 8, 16.0, 0.0).load(served, saved)
    server.adapted["tuned"] = served.eval()
    theirs = train(*arguments(server, tmp_path), "model.source=tuned", "model.name=served", output=tmp_path / "theirs")
    assert theirs.status == 0, theirs.err
    columns = ["example_id", "question", "prediction"]
    assert theirs.predictions[columns].equals(tuned.predictions[columns])
    assert theirs.predictions["prediction"].nunique() > 1
    assert {body["model"] for body in server.bodies} == {"tuned"}


def test_a_cell_killed_in_the_middle_goes_on_without_asking_twice(server, train, tmp_path):
    server.delay = 0.25
    limit = ["model.concurrency=3", "domain.patients=24", "task.resamples=100"]
    output = tmp_path / "runs"
    command = [sys.executable, "-m", "vlmbench.train", *arguments(server, tmp_path, *limit), f"output={output}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while server.answered < 10 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    time.sleep(0.5)
    before, server.delay = Counter(server.asked), 0.0
    assert 10 <= server.answered <= 20
    ran = train(*arguments(server, tmp_path, *limit), output=output)
    assert ran.status == 0, ran.err
    twice = {question: times for question, times in Counter(server.asked).items() if times > 1}
    assert len(twice) <= 3, "more than were in flight at the kill"
    assert set(twice.values()) <= {2}
    assert set(twice) <= set(before)
    spent = ran.record["cost"]["hosted"]
    assert spent["cached"]["answers"] >= sum(before.values()) - 3
    assert spent["paid"]["answers"] + spent["cached"]["answers"] == len(ran.predictions)


def test_as_many_requests_as_allowed_and_no_more(server, hosted):
    server.delay = 0.1
    assert ask(hosted(concurrency=5), 20) == ["yes"] * 20
    assert server.most == 5


# ------------------------------------------------------------------------------------------------------- what is sent


def test_an_image_arrives_pixel_for_pixel_and_only_a_large_one_is_scaled(hosted):
    model = hosted(max_side=64)
    for size, expected in (((24, 20), (24, 20)), ((64, 10), (64, 10)), ((128, 64), (64, 32)), ((50, 200), (16, 64))):
        picture = image(1, size)
        encoded = model.preprocess(picture)
        arrived = Image.open(io.BytesIO(base64.b64decode(encoded.url.removeprefix("data:image/png;base64,"))))
        assert arrived.size == expected
        assert encoded.nbytes == len(encoded.url)
        if size == expected:
            assert arrived.tobytes() == picture.tobytes()
        assert picture.size == size


def test_the_request_is_what_the_yaml_says(server, hosted):
    settings = {"reasoning_effort": "low", "seed": 3}
    ask(hosted(instructions="Be brief.", settings=settings, token_field="max_tokens", extra_tokens=100))
    (body,) = server.bodies
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert [part["type"] for part in body["messages"][1]["content"]] == ["image_url", "text"]
    assert body["max_tokens"] == 108
    assert (body["reasoning_effort"], body["seed"], body["model"]) == ("low", 3, "tiny")
    assert not {"max_completion_tokens", "temperature", "stream"} & set(body)
    assert server.keys == [f"Bearer {KEY}"]


def test_an_endpoint_without_a_key_is_not_sent_one_that_lies_about(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    ask(HostedVlm(Endpoint(server.url), AnswerCache(tmp_path), "tiny"))
    assert server.keys == ["Bearer none"]


def test_what_decides_the_answer_decides_its_place_in_the_cache(server, hosted):
    def key(picture=0, prompt="q", **settings):
        model = hosted(**settings)
        return model.collate([Turn(model.preprocess(image(picture)), prompt)], supervise=False)[0][0]

    keys = [key(), key(1), key(prompt="p"), key(instructions="Be brief."), key(settings={"seed": 1})]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]
    assert key(extra_tokens=5, concurrency=9, retries=0) == keys[0]


# ------------------------------------------------------------------------------------------------- faults that pass

PASSING = {
    "429": (429, "{}", {"Retry-After": "1"}),
    "500": (500, "oops"),
    "503": (503, '{"error": {"message": "overloaded"}}'),
    "timeout": "timeout",
    "reset": "reset",
    "broken JSON": (200, '{"choices": [{"mess'),
    "a page": (200, "<html>proxy</html>", {"Content-Type": "text/html"}),
    "a list": (200, "[]"),
    "no choices": (200, '{"choices": []}'),
    "an error in place of choices": (200, '{"error": {"message": "upstream"}}'),
    "content null": (200, '{"choices": [{"finish_reason": "stop", "message": {"content": null}}]}'),
    "content no text": (200, '{"choices": [{"finish_reason": "stop", "message": {"content": 7}}]}'),
    "no message": (200, '{"choices": ["?"]}'),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_fault_that_passes_is_tried_again(server, hosted, fault, quick, capfd):
    server.faults = [fault, fault]
    model = hosted()
    assert ask(model) == ["yes"]
    assert len(server.asked) == 3
    (times,) = model.usage()["retried"].values()
    assert times == 2
    assert capfd.readouterr().err.count("trying again") == 1
    if fault == PASSING["429"]:
        assert np.diff(server.times).min() >= 1
    assert model.usage()["paid"]["answers"] == 1


def test_the_pauses_grow_and_are_jittered(server, monkeypatch):
    pauses: list[float] = []
    stop = threading.Event()
    monkeypatch.setattr(stop, "wait", pauses.append)
    server.faults = [PASSING["500"]] * 9
    Endpoint(server.url, retries=9).ask({"model": "tiny", "messages": []}, 8, stop)
    assert len(pauses) == 9
    for number, pause in enumerate(pauses):
        assert min(60, 2**number) / 2 <= pause <= min(60, 2**number)
    assert len({pause / 2**number for number, pause in enumerate(pauses)}) > 5


def test_a_retry_after_is_a_number_or_a_date():
    assert retry_after("2.5") == 2.5
    assert retry_after("") == retry_after("soon") == retry_after("-3") == retry_after("inf") == 0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    assert 27 < retry_after(later) <= 30


# ------------------------------------------------------------------------------------------ faults that end the run

ENDING = {
    "tries": ([PASSING["500"]] * 9, ["status 500", "after 5 tries"]),
    "nothing said": ([PASSING["content null"]] * 9, ["without text (finish_reason stop)", "after 5 tries"]),
    "key": ([(401, json.dumps({"error": {"message": f"no such key: {KEY}"}}))] * 4, ["401", "[key]", KEY_ENV]),
    "parameter": (
        [(400, '{"error": {"message": "use max_completion_tokens"}}')] * 4,
        ["max_comp", "model.token_field"],
    ),
    "Google's list": ([(400, '[{"error": {"message": "API key not valid"}}]')] * 4, ["400", "API key not valid"]),
    "error in place of choices": ([PASSING["an error in place of choices"]] * 9, ["without choices", "upstream"]),
    "quota": ([(429, '{"error": {"code": "insufficient_quota", "message": "pay"}}')] * 4, ["status 429: ", "pay"]),
    "patience": ([(429, "{}", {"Retry-After": "86400"})] * 4, ["status 429", "asks to wait 86,400 s"]),
}


@pytest.mark.parametrize(("faults", "expected"), ENDING.values(), ids=ENDING)
def test_a_fault_that_stays_is_one_message_and_keeps_what_was_answered(server, hosted, faults, expected, quick):
    model = hosted(concurrency=1)
    assert ask(model, 3) == ["yes"] * 3
    server.faults = list(faults)
    with pytest.raises(HostedError) as stopped:
        ask(model, 8)
    message = str(stopped.value)
    for word in [*expected, "The 6 answers so far are kept in", "the same command goes on there"]:
        assert word in message
    assert KEY not in message
    asked, server.faults = len(server.asked), []
    assert ask(hosted(), 8) == ["yes"] * 8
    assert len(server.asked) == asked + 5


def test_a_cache_that_cannot_be_written_is_found_out_before_anything_is_paid_for(server, hosted, tmp_path):
    (tmp_path / "answers").write_text("a file where the folder should be")
    with pytest.raises(HostedError, match=r"model.cache=.* cannot be written"):
        ask(hosted(), 3)
    assert server.asked == []


def test_what_is_in_flight_when_another_fails_is_kept(server, hosted, quick):
    server.delay = 0.2
    server.faults = [(404, "{}")]
    model = hosted(concurrency=4)
    with pytest.raises(HostedError, match="404"):
        ask(model, 30)
    assert len(server.asked) <= 7
    assert model.usage()["paid"]["answers"] == len(server.asked) - 1
    asked = len(server.asked)
    assert ask(hosted(), 30) == ["yes"] * 30
    assert len(server.asked) == asked + 30 - (asked - 1)


def everything_under(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("fault", ["none", "key", "reset", "no choices"])
def test_the_key_is_nowhere_but_in_the_request(server, train, tmp_path, monkeypatch, quick, fault):
    monkeypatch.setenv(KEY_ENV, f"{KEY}\n")
    echo = (401, json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}", "code": KEY, "type": KEY}}))
    none = (200, json.dumps({"error": f"no {KEY}"}))
    server.faults = {"none": [], "key": [echo] * 99, "reset": ["reset"] * 99, "no choices": [none] * 99}[fault]
    more = [f"model.api_key_env={KEY_ENV}", "model.retries=2", "model.concurrency=2"]
    ran = train(*arguments(server, tmp_path, *more))
    assert server.keys[0] == f"Bearer {KEY}"
    assert ran.record["status"] == ("done" if fault == "none" else "failed")
    assert ran.status == (0 if fault == "none" else 1)
    if fault == "no choices":
        assert "[key]" in ran.record["error"]["message"]
    if fault != "none":
        assert ran.record["error"]["type"] == "HostedError"
        assert "Traceback" not in ran.err
        assert ran.record["error"]["traceback"].count("Traceback") == 1
    assert KEY_ENV.encode() in everything_under(tmp_path)
    assert KEY.encode() not in everything_under(tmp_path)
    assert KEY not in ran.out + ran.err


# --------------------------------------------------------------------------------- answers without a word, and cut ones


def completion(finish, **message):
    return {"choices": [{"finish_reason": finish, "message": message}]}


def test_a_model_that_declines_has_answered(server, hosted):
    filtered = (400, '{"error": {"code": "content_filter", "message": "no"}}')
    server.faults = [filtered, *((200, json.dumps(reply)) for reply in (
        completion("content_filter", content=None),
        completion("stop", content=None, refusal="I cannot help."),
        completion("stop", content=""),
    ))]  # fmt: skip
    model = hosted(concurrency=1)
    assert ask(model, 4) == ["", "", "I cannot help.", ""]
    assert model.usage()["no_text"] == {"content_filter": 2, "stop": 1}
    assert model.usage()["retried"] == {}
    assert ask(hosted(), 4) == ["", "", "I cannot help.", ""]
    assert len(server.asked) == 4


def test_an_answer_that_ran_out_of_tokens_is_told_and_only_it_is_asked_again(server, hosted, capfd):
    cut = (200, json.dumps(completion("length", content=None)))
    server.faults = [cut]
    model = hosted(concurrency=1)
    assert ask(model, 9) == ["", *["yes"] * 8]
    assert model.usage()["no_text"] == {"length": 1}
    assert "tiny: 1 of 9 answers are empty" in capfd.readouterr().err
    assert ask(hosted(), 9)[0] == ""
    assert len(server.asked) == 9
    assert ask(hosted(extra_tokens=50), 9) == ["yes"] * 9
    assert len(server.asked) == 10
    assert server.bodies[-1]["max_completion_tokens"] == 58
    assert ask(hosted(), 9)[0] == "", "the answer under the smaller budget is still there"
    assert len(server.asked) == 10


def test_a_budget_that_is_too_small_for_most_answers_ends_the_run(server, hosted):
    server.answer_with = completion("length", content=None)
    with pytest.raises(HostedError, match=r"8 of 8 answers are empty: their 8 tokens.*extra_tokens \(now 0\)"):
        ask(hosted(), 8)


def test_what_is_read_from_a_completion():
    answer = read_answer({**completion("stop", content=" left. \n"), "model": "m", "usage": {"prompt_tokens": 4}}, 9)
    assert answer == Answer("left.", "stop", "m", "", 4, 0, 9)
    odd = {**completion(None, content="x"), "usage": [], "model": None, "system_fingerprint": None}
    assert read_answer(odd, 9) == Answer("x", "", "", "", 0, 0, 9)


# --------------------------------------------------------------------------------------------------------- the cache


def test_a_spoiled_entry_is_asked_again(server, hosted, tmp_path):
    ask(hosted(), 6)
    paths = sorted((tmp_path / "answers").rglob("*.jsonl"))
    assert len(paths) == len(server.asked) == 6
    whole = paths[0].read_bytes()
    values = json.loads(whole)
    spoiled = [
        whole[: len(whole) // 2],
        b"",
        b"\0" * 80,
        json.dumps({**values, "budget": "8"}).encode(),
        json.dumps({"text": "no"}).encode(),
        b"[1]\n\xff\xfe",
    ]
    for path, content in zip(paths, spoiled, strict=True):
        path.write_bytes(content)
    assert ask(hosted(), 6) == ["yes"] * 6
    assert len(server.asked) == 12
    assert ask(hosted(), 6) == ["yes"] * 6
    assert len(server.asked) == 12
    assert parse(whole.strip()) == Answer("yes", "stop", "tiny-2025", "fp_1", 70, 3, 8)


def test_the_same_question_at_the_same_time_is_asked_once(server, hosted):
    server.delay = 0.3
    model = hosted(concurrency=8)
    turns = [Turn(model.preprocess(image()), "the same?")] * 8
    assert model.generate(model.collate(turns, supervise=False), max_new_tokens=8) == ["yes"] * 8
    assert len(server.asked) == 1
    assert model.usage()["cached"]["answers"] == 7


def test_two_processes_ask_the_same_question_once(server, tmp_path):
    server.delay = 0.1
    script = (
        "import threading\n"
        "from pathlib import Path\n"
        "from vlmbench.hosted.answers import AnswerCache\n"
        "from vlmbench.hosted.endpoint import Endpoint\n"
        f"endpoint, answers, stop = Endpoint({server.url!r}), AnswerCache(Path({str(tmp_path)!r})), threading.Event()\n"
        "for n in range(20):\n"
        "    body = {'model': 'tiny', 'messages': [{'role': 'user', 'content': f'{n}?'}]}\n"
        "    print(answers.get(f'{n:064}', 8, lambda: endpoint.ask(body, 8, stop))[0].text)\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(2)]
    for process in running:
        assert process.communicate(timeout=60)[0].decode().count("yes") == 20
    assert len(server.asked) == 20


# ------------------------------------------------------------------------------------- before anything is imported

MISTAKES = [
    (["finetune=lora"], ["finetune=lora does not apply to hosted_local, a hosted model. Valid choices: zero_shot."]),
    (["task=diagnosis"], ["task=diagnosis", "likelihood of each label", "Valid choices: vqa"]),
    (["task=pretrain"], ["task=pretrain", "Valid choices: vqa"]),
    (["model.base_url=localhost:8000/v1"], ["not an address such as"]),
    (["model.base_url=ftp://host/v1"], ["not an address such as"]),
    (["model.base_url=http://host:port/v1"], ["not an address such as"]),
    ([f"model.base_url=https://user:{KEY}@host/v1"], ["bare address"]),
    ([f"model.base_url='https://host/v1?key={KEY}'"], ["bare address"]),
    ([f"model.api_key_env={KEY}"], ["name of an environment variable", "not the key itself"]),
    (["model.api_key_env=NO_SUCH_VARIABLE"], ["environment variable NO_SUCH_VARIABLE", "is not set", "export"]),
    (["model.api_key_env=BLANK_KEY"], ["BLANK_KEY holds blanks"]),
    ([f"model.api_key_env={KEY_ENV}", "model.base_url=http://10.0.0.7:8000/v1"], ["plain http to 10.0.0.7", "https"]),
    ([f"+model.api_key={KEY}"], ["'api_key'", "api_key_env"]),
    ([f"model.api_key={KEY}"], ["'api_key'", "api_key_env"]),
    ([f"+model.settings.api_key={KEY}"], ["model.settings.api_key looks like a credential"]),
    ([f"+model.settings.extra_headers={{Authorization: {KEY}}}"], ["model.settings.extra_headers looks like"]),
    (["+model.settings.max_tokens=5"], ["model.settings.max_tokens", "model.extra_tokens"]),
    (["model.token_field=tokens"], ["model.token_field='tokens'", "max_completion_tokens"]),
    (["model.concurrency=0"], ["model.concurrency=0", "between 1 and 256"]),
]


@pytest.mark.parametrize(("mistake", "expected"), MISTAKES, ids=[row[1][0] for row in MISTAKES])
def test_a_mistake_is_one_line_that_repeats_no_key(command, monkeypatch, mistake, expected):
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setenv("BLANK_KEY", "two words")
    status, out, err = command("train", "model=hosted_local", "model.source=tiny", "finetune=zero_shot", *mistake)
    assert status == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err
    assert KEY not in err
    for word in expected:
        assert word in err


def test_the_hosted_models_of_the_study_ask_for_their_key_before_anything_heavy_is_imported():
    script = (
        "import sys\n"
        "from vlmbench.config.entry import run\n"
        "from vlmbench.train import main\n"
        "for arguments in (['model=o3'], ['model=gemini', 'finetune=zero_shot'],\n"
        "                  ['model=o3', 'finetune=lora'], ['model=hosted_local']):\n"
        "    sys.argv = ['train', *arguments]\n"
        "    try:\n        run(main)\n    except SystemExit as stop:\n        print(stop.code)\n"
        "print('HEAVY', sorted({'torch', 'lightning', 'transformers', 'openai', 'pandas'} & set(sys.modules)))\n"
    )
    bare = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=bare)
    assert ran.stdout.split() == ["2", "2", "2", "2", "HEAVY", "[]"]
    lines = ran.stderr.splitlines()
    assert len(lines) == 4
    for line, word in zip(lines, ("OPENAI_API_KEY", "GEMINI_API_KEY", "finetune=lora", "model.source"), strict=True):
        assert word in line


def test_an_answer_in_parts_or_with_half_a_letter_is_text():
    parts = [{"type": "text", "text": "no "}, {"type": "text", "text": "nodule"}, {"type": "refusal"}]
    for content, text in ((parts, "no nodule"), ("yes \ud83d", "yes ?")):
        reply = {"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}
        assert read_answer(reply, 8).text == text


@pytest.mark.parametrize("settings", ["{access_token: x}", "{provider: {api_key: x}}", "{extra: [{secret: x}]}"])
def test_a_credential_anywhere_in_the_settings_is_refused(command, settings):
    status, _, err = command("train", "model=hosted_local", "model.source=m", f"+model.settings.more={settings}")
    assert status == 2
    assert "looks like a credential" in err


def test_a_key_in_the_place_of_its_name_is_not_repeated(command):
    status, _, err = command("train", "model=o3", "model.api_key_env=AKIA9Z8Y7X6W5V4U3T2S")
    assert status == 2
    assert "AKIA9Z8Y7X6W5V4U3T2S" not in err


def test_nothing_else_of_the_environment_goes_to_an_endpoint(monkeypatch):
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "ours")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: ours")
    headers = Endpoint("http://localhost:1/v1").client.default_headers
    assert "ours" not in [str(value) for value in headers.values()]


def test_a_key_across_the_cut_of_a_message_is_struck_out(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-test-0123456789")
    endpoint = Endpoint("http://localhost:1/v1", "SOME_KEY", retries=0)
    long = "x" * 290 + "sk-test-0123456789"
    monkeypatch.setattr(endpoint, "_send", lambda body: {"error": long})
    with pytest.raises(HostedError) as error:
        endpoint.ask({}, 8, threading.Event())
    assert "sk-test" not in str(error.value)
