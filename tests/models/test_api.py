"""A model behind an endpoint, against a small server of the test: what is sent, what is read, what goes wrong."""

import base64
import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.program import Done, runner

from vlmreason.envs.number_line import NumberLine, NumberLineSizes, NumberLineState
from vlmreason.models.api import Api, ApiLearner
from vlmreason.models.contract import AdapterSettings, Prompt

KEY = "sk-very-secret-0123456789"
PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def completion(text: Any, reason: str = "stop", **further: Any) -> tuple[int, dict[str, str], bytes]:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return 200, {}, json.dumps({"choices": [choice], **further}).encode()


class Server:
    """Answers what `answer(body)` gives (status, headers, body) and keeps what came."""

    def __init__(self) -> None:
        self.answer: Callable[[Any], tuple[int, dict[str, str], bytes]] = lambda body: completion("yes")
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.busy = self.most_busy = 0
        self.pause = 0.0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    outer.bodies.append(body)
                    outer.headers.append(dict(self.headers))
                    outer.paths.append(self.path)
                    outer.busy += 1
                    outer.most_busy = max(outer.most_busy, outer.busy)
                    status, headers, data = outer.answer(body)
                time.sleep(outer.pause)
                with outer._lock:
                    outer.busy -= 1
                try:
                    self.send_response(status)
                    for name, value in ({"Content-Length": str(len(data))} | headers).items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass  # the other side has gone

            def do_GET(self) -> None:
                outer.paths.append(f"GET {self.path}")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def learner(self, **changes: Any) -> ApiLearner:
        return Api(**{"url": self.url, "model": "some-model", "wait": 0.01, "timeout": 5.0, **changes}).load()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    found = Server()
    yield found
    found.close()


def test_prompt_picture_and_settings_arrive_as_they_are(server: Server) -> None:
    text = 'Move to "the target":\n+ or - ü'
    [generation] = server.learner().generate([Prompt(text, PICTURE)], 17)
    assert generation.text == "yes"
    [body] = server.bodies
    [message] = body["messages"]
    shown, asked = message["content"]
    assert message["role"] == "user"
    assert asked == {"type": "text", "text": text}
    head, _, data = shown["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), PICTURE)
    assert {key: body[key] for key in ("model", "max_tokens", "temperature")} == {
        "model": "some-model",
        "max_tokens": 17,
        "temperature": 0.0,
    }
    assert server.paths == ["/v1/chat/completions"]


def test_text_alone_and_other_names_of_the_limit(server: Server) -> None:
    learner = server.learner(url=f"{server.url}/chat/completions", temperature=None, length_key="max_completion_tokens")
    learner.generate([Prompt("a", None)], 5)
    assert server.bodies == [
        {"model": "some-model", "messages": [{"role": "user", "content": "a"}], "max_completion_tokens": 5}
    ]
    assert server.paths == ["/v1/chat/completions"]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (completion("one two", usage={"completion_tokens": 7}), ("one two", 7, True)),
        (completion("one two"), ("one two", 2, True)),
        (completion("one two", usage={"completion_tokens": 10**100}), ("one two", 2, True)),
        (completion("one", "length", usage={"completion_tokens": 9}), ("one", 9, False)),
        (completion(None, usage=None), ("", 0, True)),
        (completion("a\ud800b"), ("a?b", 1, True)),
        (completion([{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]), ("a b", 2, True)),
    ],
)
def test_replies_become_generations(server: Server, reply: Any, expected: tuple[str, int, bool]) -> None:
    server.answer = lambda body: reply
    [found] = server.learner().generate([Prompt("a", None)], 9)
    assert (found.text, found.num_tokens, found.finished) == expected


def test_answers_keep_the_order_of_their_prompts_and_requests_run_side_by_side(server: Server) -> None:
    server.answer = lambda body: completion(body["messages"][0]["content"] + "!")
    server.pause = 0.05
    names = [str(number) for number in range(12)]
    found = server.learner(parallel=3).generate([Prompt(name, None) for name in names], 9)
    assert [one.text for one in found] == [f"{name}!" for name in names]
    assert 1 < server.most_busy <= 3
    assert server.learner().generate([], 9) == []


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_may_pass_is_tried_again(server: Server, status: int) -> None:
    server.answer = lambda body: completion("yes") if len(server.bodies) > 2 else (status, {}, b"{}")
    assert server.learner().generate([Prompt("a", None)], 9)[0].text == "yes"
    assert len(server.bodies) == 3


def test_attempts_are_bounded_and_the_endpoint_may_ask_for_more_time(server: Server) -> None:
    server.answer = lambda body: (429, {"Retry-After": "0.2"}, b'{"error": {"message": "slow\\ndown"}}')
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"no answer in 3 attempts \(status 429: slow down\); model\.retries"):
        server.learner(retries=2).generate([Prompt("a", None)], 9)
    assert time.monotonic() - started > 0.4
    assert len(server.bodies) == 3
    server.answer = lambda body: (429, {"Retry-After": "5000"}, b"")
    with pytest.raises(ValueError, match="2 attempts"):
        server.learner(retries=1, max_wait=0.05).generate([Prompt("a", None)], 9)


def test_a_silent_endpoint_and_a_cut_off_reply_are_tried_again(server: Server) -> None:
    server.pause = 0.5
    with pytest.raises(ValueError, match=r"no answer in 2 attempts"):
        server.learner(timeout=0.1, retries=1).generate([Prompt("a", None)], 9)
    assert len(server.bodies) == 2
    server.pause = 0.0
    server.answer = lambda body: (200, {"Content-Length": "1000"}, b'{"choices"')
    with pytest.raises(ValueError, match=r"2 attempts \(the connection broke: IncompleteRead\)"):
        server.learner(retries=1).generate([Prompt("a", None)], 9)


HEAD = b"HTTP/1.1 200 OK\r\n"
DRIPPED = {
    "status line": (b"HTTP/1.1 200 ", b"O"),
    "header": (HEAD + b"X-Slow: ", b"x"),
    "headers": (HEAD, b"X: y\r\n"),
    "body": (HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
    "body without a length": (HEAD + b"Connection: close\r\n\r\n", b" "),
    "size of a chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "body of an error": (b"HTTP/1.1 400 Bad\r\nContent-Length: 100000\r\n\r\n", b" "),
    "handshake": (b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc", b"\x03"),
}


@pytest.mark.parametrize("place", DRIPPED)
def test_an_endpoint_that_sends_drop_by_drop_is_left_in_time(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    first, drop = DRIPPED[place]

    def drip() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(first)
            for _ in range(300):
                time.sleep(0.05)
                connection.sendall(drop)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip)
        thread.start()
        kind = "https" if place == "handshake" else "http"
        learner = Api(
            url=f"{kind}://127.0.0.1:{listener.getsockname()[1]}/v1", model="m", timeout=0.4, retries=0
        ).load()
        started = time.monotonic()
        with pytest.raises(ValueError, match=r"no answer in 1 attempts \(no whole reply in 0\.4 s\)"):
            learner.generate([Prompt("a", None)], 9)
        assert time.monotonic() - started < 6
        thread.join()


def test_requests_leave_no_thread_and_no_connection_behind(server: Server) -> None:
    before = threading.active_count()
    server.learner(timeout=60.0, parallel=1).generate([Prompt("a", None)] * 20, 9)
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before


@pytest.mark.parametrize("filler", ["", " " * 65_530, "x" * 180, "x" * 199, "\n" * 40])
@pytest.mark.parametrize("status", [200, 400, 401, 404, 429])
def test_no_part_of_the_key_is_shown(server: Server, monkeypatch: pytest.MonkeyPatch, status: int, filler: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.answer = lambda body: (status, {}, f"{filler}{KEY} and {KEY}".encode())
    with pytest.raises(ValueError, match=r"model\.url=") as found:
        server.learner(retries=0).generate([Prompt("a", None)], 9)
    assert not [length for length in range(6, len(KEY)) if KEY[:length] in str(found.value)]


@pytest.mark.parametrize(
    "reply",
    [
        (400, {}, b'{"error": "\\u001b[2Jgone\\u009b1m\\u202e\\u0007"}'),
        (500, {}, b"\x1b]0;title\x07\r\x08 gone"),
        (302, {"Location": "http://host/\x1b[31mgone"}, b""),
        (200, {}, b"\x1b[2Jgone"),
    ],
)
def test_signs_that_steer_a_terminal_are_not_shown(server: Server, reply: Any) -> None:
    server.answer = lambda body: reply
    with pytest.raises(ValueError, match="gone") as found:
        server.learner(retries=0).generate([Prompt("a", None)], 9)
    assert str(found.value).isprintable()


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ((401, {}, b'{"error": {"message": "no key"}}'), r"refused \(status 401: no key\).*which is not set"),
        ((404, {}, b"nothing"), r"model\.model=some-model: not there \(status 404: nothing\).*/v1"),
        ((400, {}, b'{"error": "too large"}'), r"the request is refused \(status 400: too large\)"),
        ((302, {"Location": "http://127.0.0.1:9/x"}, b""), r"redirects to http://127.0.0.1:9/x"),
        ((200, {}, b"<html>"), r"no chat completion: '<html>'"),
        ((200, {}, b"[" * 100_000), r"no chat completion: '\[\["),
        ((200, {}, b'{"choices": []}'), r"no chat completion"),
        (completion(7), r"no chat completion"),
        (completion("x" * 5000), r"more than model\.max_reply=4000 bytes"),
    ],
)  # fmt: skip
def test_what_will_not_pass_is_said_at_once(server: Server, reply: Any, says: str) -> None:
    server.answer = lambda body: reply
    with pytest.raises(ValueError, match=says):
        server.learner(max_reply=4000 if "max_reply" in says else 10**6).generate([Prompt("a", None)], 9)
    assert len(server.paths) == 1


def test_an_address_without_anyone_is_said_at_once(server: Server) -> None:
    learner = server.learner(url="http://127.0.0.1:9/v1", retries=9, wait=5.0)
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"model\.url=http://127\.0\.0\.1:9/v1: cannot be reached"):
        learner.generate([Prompt("a", None)], 9)
    assert time.monotonic() - started < 4


def test_the_key_goes_to_the_endpoint_and_nowhere_else(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.learner().generate([Prompt("a", None)], 9)
    assert "Authorization" not in server.headers[0]
    monkeypatch.setenv("OTHER_KEY", f"{KEY}\n")
    learner = server.learner(key_variable="OTHER_KEY")
    learner.generate([Prompt("a", None)], 9)
    assert server.headers[1]["Authorization"] == f"Bearer {KEY}"
    learner.save(tmp_path / "model")
    assert all(KEY not in path.read_text() for path in (tmp_path / "model").iterdir())
    server.answer = lambda body: (401, {}, json.dumps({"error": {"message": f"wrong key {KEY}"}}).encode())
    with pytest.raises(ValueError, match=r"wrong key \*\*\*"):
        learner.generate([Prompt("a", None)], 9)
    monkeypatch.setenv("OTHER_KEY", f"{KEY} {KEY}")
    with pytest.raises(ValueError, match="environment variable OTHER_KEY") as found:
        learner.generate([Prompt("a", None)], 9)
    assert KEY not in str(found.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"url": "localhost:8000"}, r"model\.url=localhost:8000: http://HOST"),
        ({"url": "http://host:port/v1"}, r"model\.url=http://host:port/v1"),
        ({"url": f"http://me:{KEY}@host/v1"}, r"model\.url: an address without user"),
        ({"url": f"http://host/v1?key={KEY}"}, r"model\.url: an address without user"),
        ({"key_variable": KEY}, r"model\.key_variable: the name of an environment variable"),
        ({"parallel": 0}, r"model\.parallel=0: 1 or more"),
        ({"timeout": 0.0}, r"model\.timeout=0\.0: more than 0"),
        ({"retries": -1}, r"model\.retries=-1: 0 or more"),
        ({"temperature": 3.0}, r"model\.temperature=3\.0: allowed are 0 to 2"),
        ({"url": None}, r"model\.url: missing"),
        ({"model": None}, r"model\.model: missing"),
    ],
)
def test_settings_are_checked(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as found:
        Api(**{"url": "http://host/v1", "model": "m", **changes}).load()
    assert KEY not in str(found.value)


def test_what_needs_weights_is_refused(server: Server) -> None:
    learner = server.learner()
    with pytest.raises(ValueError, match=r"conversion=forbid.*conversion=free"):
        learner.generate([Prompt("a", None)], 9, ["Convert"])
    with pytest.raises(ValueError, match=r"conversion=force, evaluation\.condition and evaluation\.prefill"):
        learner.generate([Prompt("a", None, "Convert")], 9)
    with pytest.raises(ValueError, match=r"model=api: training needs weights.*supervision=none"):
        learner.trained_parameters("all")
    with pytest.raises(ValueError, match=r"adapter\.frozen=\['projector'\]"):
        learner.adapt(AdapterSettings(frozen=("projector",)), 0)
    assert not server.bodies


def test_a_saved_model_is_asked_as_it_was(server: Server, tmp_path: Path) -> None:
    server.learner(temperature=0.5).save(tmp_path)
    again = Api(model="another", parallel=2).load(tmp_path).settings
    assert (again.url, again.model, again.temperature, again.parallel) == (server.url, "some-model", 0.5, 2)
    (tmp_path / "api.json").write_text("{}")
    with pytest.raises(ValueError, match=r"api\.json: damaged"):
        Api().load(tmp_path)
    with pytest.raises(ValueError, match=r"api\.json is missing"):
        Api().load(tmp_path / "none")


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Done]:
    monkeypatch.chdir(tmp_path)
    return runner(monkeypatch, capsys)


def words(server: Server, *further: str) -> list[str]:
    own = ["model=api", f"model.url={server.url}", "model.model=m", "model.wait=0.01", "env=number_line"]
    return ["train", *own, "evaluation.num=8", "evaluation.batch_size=4", "trainer.progress=false", *further]


def expert() -> Callable[[Any], tuple[int, dict[str, str], bytes]]:
    """Knows the positions by the pictures of all of them."""
    env = NumberLine(NumberLineSizes(max_number=5, picture=(144, 144), font=20))
    states = [NumberLineState(target, current) for target in range(6) for current in range(6)]
    replies = {env.draw(state).tobytes(): env.expert(state) for state in states if state.target != state.current}

    def answer(body: Any) -> tuple[int, dict[str, str], bytes]:
        shown = body["messages"][0]["content"][0]["image_url"]["url"].partition(",")[2]
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown))))
        return completion(replies[picture.tobytes()], usage={"completion_tokens": 11})

    return answer


def test_a_run_without_training_asks_scores_and_is_found_again(
    server: Server, program: Callable[..., Done], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.answer = expert()
    done = program(*words(server, "supervision=none"))
    assert done.code == 0, done.err
    folder = tmp_path / done.last_line
    [cell] = json.loads((folder / "summary.json").read_text())["cells"]
    assert cell["accuracy"] == 1.0
    assert KEY not in done.out + done.err
    assert all(KEY.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    asked = len(server.bodies)
    assert program(*words(server, "supervision=none")).last_line == done.last_line
    assert len(server.bodies) == asked
    server.answer = lambda body: completion("I would rather not. {")
    other = program(*words(server, "supervision=none", "seed=1"))
    [cell] = json.loads((tmp_path / other.last_line / "summary.json").read_text())["cells"]
    assert cell["accuracy"] == 0.0


def test_training_is_refused_before_there_is_a_run(
    server: Server, program: Callable[..., Done], tmp_path: Path
) -> None:
    for further in ([], ["supervision=none", "algorithm=ppo"]):
        done = program(*words(server, *further))
        assert done.code == 2
        assert "model=api: training needs weights" in done.err
    assert not (tmp_path / "outputs").exists()
    assert not server.bodies
