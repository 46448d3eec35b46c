"""A judge on this machine: an OpenAI-compatible server that grades by string comparison, with faults by script."""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class JudgeServer(ThreadingHTTPServer):
    """`/v1/chat/completions` on a free port of the loopback address.

    Attributes:
        rule: From the graded fields, in their order, to the text of the reply.
        faults: What befalls the next requests: a status, or the text of a reply.
        bodies: Every request's JSON.
        delay: Seconds that each answer takes.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.rule, self.faults, self.bodies, self.delay, self.answered = grade, [], [], 0.0, 0
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: JudgeServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet

    def log_message(self, *_):
        """Say nothing."""

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.bodies.append(body)
            fault = server.faults.pop(0) if server.faults else None
        time.sleep(server.delay)
        status = fault if isinstance(fault, int) else 200
        text = fault if isinstance(fault, str) else server.rule(fields_of(body))
        completion = {
            "model": f"{body['model']}-2026",
            "system_fingerprint": "fp_9",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 8},
        }
        data = json.dumps(completion if status == 200 else {"error": {"message": "later"}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        with server.lock:
            server.answered += 1


def fields_of(body):
    """The JSON object that the prompt holds; the first one, so that one in an answer is not taken for it."""
    text = body["messages"][1]["content"]
    return json.JSONDecoder().raw_decode(text[text.index("\n{") + 1 :])[0]


def grade(fields):
    """Correct where the words are the same, partial where some are."""
    words = [set(re.findall(r"\w+", fields[name].lower())) for name in ("reference_answer", "candidate_answer")]
    verdict = "correct" if words[0] == words[1] else "partial" if words[0] & words[1] else "incorrect"
    return json.dumps({"verdict": verdict})
