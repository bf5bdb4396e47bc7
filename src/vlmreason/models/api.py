"""A model behind an endpoint with OpenAI's chat interface: evaluated as those of chapter 4 are, never trained.

A prompt is one message of the user, without any system message; a picture goes before the text, as PNG in a data URL.
The key is read from an environment variable at each batch; no file and no message holds it.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import random
import re
import socket
import ssl
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn
from urllib.parse import urlsplit

from PIL import Image

from vlmreason.files import read_object, write_json_atomic
from vlmreason.models.contract import AdapterSettings, Choice, Generation, Prompt
from vlmreason.pictures import Picture
from vlmreason.structure import check_positive, first_line, speed, structure

FILE = "api.json"
"""What a run keeps in place of weights: which model was asked, and how."""

_KEPT = ("url", "model", "temperature", "length_key")  # what decides the answers
_PATH = "/chat/completions"
_SHOWN = 200  # characters of a reply in a message
_CHUNK = 65_536
_MAX_TOKENS = 10_000_000  # of one reply; an endpoint that counts more is not believed


@dataclass(frozen=True)
class Api:
    """conf/model/api.yaml."""

    name: str = "api"
    url: str | None = None
    model: str | None = None
    key_variable: str = speed("OPENAI_API_KEY")
    temperature: float | None = 0.0
    length_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    parallel: int = speed(8)
    timeout: float = speed(120.0)
    retries: int = speed(5)
    wait: float = speed(1.0)
    max_wait: float = speed(60.0)
    max_reply: int = speed(1_000_000)

    def __post_init__(self) -> None:
        check_positive(self, "parallel", "max_reply", where="model.")
        for name in ("retries", "wait", "max_wait"):
            if getattr(self, name) < 0:
                raise ValueError(f"model.{name}={getattr(self, name)}: 0 or more is expected")
        if self.timeout <= 0:
            raise ValueError(f"model.timeout={self.timeout}: more than 0 seconds are expected")
        if self.temperature is not None and not 0 <= self.temperature <= 2:
            raise ValueError(f"model.temperature={self.temperature}: allowed are 0 to 2, and null")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key_variable):
            raise ValueError(  # not the value: it may be the key itself
                "model.key_variable: the name of an environment variable is expected, never the key"
            )
        if self.url is not None:
            _check_url(self.url)

    def load(self, trained: Path | None = None) -> ApiLearner:
        """Return what asks the endpoint; as a run asked it where its directory is given. Raises ValueError."""
        if trained is not None:
            kept = _read(trained / FILE)
            return ApiLearner(structure(Api, vars(self) | kept, str(trained / FILE)))
        if self.url is None:
            raise ValueError("model.url: missing; the address before /chat/completions, e.g. https://HOST/v1")
        if self.model is None:
            raise ValueError(f"model.model: missing; the name of the model at {self.url}")
        return ApiLearner(self)


class ApiLearner:
    """As much of a Learner as evaluation needs; there are no weights here, so `model` is None."""

    model = None
    source = None

    def __init__(self, settings: Api) -> None:
        self.settings = settings

    def generate(
        self, prompts: Sequence[Prompt], max_new_tokens: int, forbidden_starts: Sequence[str] = ()
    ) -> list[Generation]:
        """Return responses to prompts, several requests at a time; their tokens are the endpoint's own count where it
        says it.

        Raises ValueError for what an endpoint cannot do (a beginning that is given or forbidden), and where it does
        not answer.
        """
        if forbidden_starts:
            raise ValueError(
                "evaluation.conversion=forbid and evaluation.condition=forbid: a model behind an endpoint cannot be "
                "kept from a first word; evaluation.conversion=free evaluation.condition=free"
            )
        if any(prompt.prefill for prompt in prompts):
            raise ValueError(
                "evaluation.conversion=force, evaluation.condition and evaluation.prefill: the response of a model "
                "behind an endpoint cannot be begun for it; evaluation.conversion=free evaluation.prefill=''"
            )
        if any(prompt.pattern for prompt in prompts):
            raise ValueError(
                "evaluation.length=given: a model behind an endpoint ends where it likes; evaluation.length=free"
            )
        stop, key = threading.Event(), _read_key(self.settings.key_variable)
        pool = ThreadPoolExecutor(min(self.settings.parallel, max(1, len(prompts))))
        try:
            asked = [pool.submit(self._answer, prompt, max_new_tokens, key, stop) for prompt in prompts]
            return [one.result() for one in asked]
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def choose(self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]) -> list[list[Choice]]:
        """Raise ValueError: an endpoint writes text, and says of no other how likely it is."""
        raise ValueError("evaluation.how=choose: a model behind an endpoint only writes text; evaluation.how=generate")

    def embed(self, prompts: Sequence[Prompt]) -> NoReturn:
        """Raise ValueError: an endpoint gives no vectors of what the model sees."""
        self._refuse("embedding")

    def count_tokens(self, text: str) -> int:
        """Count words: the tokens of the model are not known here."""
        return len(text.split())

    def adapt(self, settings: AdapterSettings, seed: int, trained: Path | None = None) -> None:
        """Refuse what cannot be done here: nothing can be adapted. Raises ValueError."""
        if settings.name != "none" or settings.frozen:
            self._refuse(f"adapter.name={settings.name}, adapter.frozen={list(settings.frozen)}")

    def trained_parameters(self, train: object = "all") -> NoReturn:
        """Raise ValueError: nothing can be trained."""
        self._refuse("training")

    def save(self, directory: Path) -> None:
        """Write which model is asked and how, without the key."""
        directory.mkdir(parents=True, exist_ok=True)
        write_json_atomic(directory / FILE, {name: getattr(self.settings, name) for name in _KEPT})

    def _refuse(self, what: str) -> NoReturn:
        raise ValueError(
            f"model={self.settings.name}: {what} needs weights, and a model behind an endpoint has none here; it is "
            "evaluated only: supervision=none algorithm=sft adapter=none"
        )

    def _answer(self, prompt: Prompt, max_new_tokens: int, key: str | None, stop: threading.Event) -> Generation:
        own = self.settings
        body: dict[str, Any] = {
            "model": own.model,
            "messages": [{"role": "user", "content": _content(prompt)}],
            own.length_key: max_new_tokens,
        }
        if own.temperature is not None:
            body["temperature"] = own.temperature
        data, wait = json.dumps(body).encode(), own.wait
        for attempt in range(own.retries + 1):
            try:
                return self._read_reply(self._send(data, key), key)
            except _Again as error:
                if attempt == own.retries or stop.is_set():
                    raise ValueError(
                        f"model.url={own.url}: no answer in {attempt + 1} attempts ({_plain(str(error), key)}); "
                        "model.retries, model.wait and model.timeout may be raised, model.parallel lowered; the same "
                        "command goes on"
                    ) from None
                asked = error.wait if error.wait is not None else wait * _jitter.uniform(0.75, 1.25)
                stop.wait(min(asked, own.max_wait))
                wait *= 2
            except _Refused as error:
                raise ValueError(_plain(str(error), key)) from None
        raise AssertionError

    def _send(self, data: bytes, key: str | None) -> bytes:
        """The reply to one request. Raises _Again where another attempt may help, else _Refused."""
        own = self.settings
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        request = urllib.request.Request(_address(str(own.url)), data, headers, method="POST")
        late = _Again(f"no whole reply in {own.timeout:g} s")
        with _Deadline(own.timeout) as deadline:
            try:
                reply = self._exchange(request, deadline, key)
            except (_Again, _Refused) as error:
                raise (late if deadline.over else error) from None
            if deadline.over:  # a body without a length ends where it is broken off
                raise late
            return reply

    def _exchange(self, request: urllib.request.Request, deadline: _Deadline, key: str | None) -> bytes:
        own = self.settings
        opener = urllib.request.build_opener(_NoRedirect, _Open(deadline), _OpenSecure(deadline))
        try:
            with opener.open(request, timeout=own.timeout) as reply:
                return _read_all(reply, own.max_reply)
        except urllib.error.HTTPError as error:
            with error:
                raise self._explain(error, key) from None
        except urllib.error.URLError as error:
            why = error.reason
            if isinstance(why, (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError)):
                raise _Refused(f"model.url={own.url}: cannot be reached ({first_line(why)})") from None
            raise _Again(first_line(error)) from None
        except TimeoutError:
            raise _Again(f"no whole reply in {own.timeout:g} s") from None
        except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: a size that is no number
            raise _Again(f"the connection broke: {type(error).__name__}") from None
        except _TooLong:
            raise _Refused(f"model.url={own.url}: a reply of more than model.max_reply={own.max_reply} bytes") from None

    def _explain(self, error: urllib.error.HTTPError, key: str | None) -> _Again | _Refused:
        own, status = self.settings, error.code
        said = f"status {status}: {_message(error, key)}"
        if status == 429 or status == 408 or status >= 500:
            return _Again(said, _seconds(error.headers.get("Retry-After")))
        if status in (401, 403):
            held = "is set" if os.environ.get(own.key_variable) else "is not set"
            return _Refused(
                f"model.url={own.url}: access is refused ({said}); the key is read from the environment variable "
                f"model.key_variable={own.key_variable}, which {held}"
            )
        if status == 404:
            return _Refused(
                f"model.url={own.url} model.model={own.model}: not there ({said}); model.url is the address before "
                f"{_PATH}, e.g. https://HOST/v1"
            )
        if 300 <= status < 400:
            where = _said(str(error.headers.get("Location")), key)
            return _Refused(f"model.url={own.url}: redirects to {where}, which is not followed")
        return _Refused(f"model.url={own.url} model.model={own.model}: the request is refused ({said})")

    def _read_reply(self, data: bytes, key: str | None) -> Generation:
        """The response in a reply. Raises _Refused where it is no chat completion."""
        try:
            reply = json.loads(data)
            choice = reply["choices"][0]
            text, reason = choice["message"].get("content"), choice.get("finish_reason")
            usage = reply.get("usage") or {}
            num = usage.get("completion_tokens")
            if isinstance(text, list):  # some write a list of parts, as in requests
                text = "".join(part.get("text", "") for part in text)
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            text, reason, num = False, None, None
        if text is None:
            text = ""  # a refusal, or all tokens went into hidden thoughts
        if not isinstance(text, str):
            shown = _said(data.decode(errors="replace"), key)
            raise _Refused(f"model.url={self.settings.url}: the reply is no chat completion: {shown!r}")
        if not isinstance(num, int) or isinstance(num, bool) or not 0 <= num <= _MAX_TOKENS:
            num = self.count_tokens(text)
        text = text.encode(errors="replace").decode()  # halves of characters, which no file can hold
        return Generation(text, num, reason != "length")


class _Again(Exception):
    """No answer, and another attempt may bring one; `wait`: the seconds that the endpoint asks for."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class _Refused(Exception):
    """No attempt will bring an answer."""


class _TooLong(Exception):
    pass


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key goes to the address that the user names and to no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _Deadline:
    """Breaks an exchange off when its time is over, wherever it stands: a server may send drop by drop for ever."""

    def __init__(self, seconds: float) -> None:
        self.over = False
        self._handles: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            for handle in self._handles:
                handle.close()
            self._handles.clear()

    def watch(self, connection: socket.socket) -> None:
        """Break off this connection too."""
        with self._lock:
            self._handles.append(connection.dup())
        if self.over:
            self._end()

    def _end(self) -> None:
        self.over = True
        with self._lock:
            for handle in self._handles:
                with contextlib.suppress(OSError):
                    handle.shutdown(socket.SHUT_RDWR)


class _Watched(http.client.HTTPConnection):
    deadline: _Deadline

    def connect(self) -> None:
        super().connect()
        self.deadline.watch(self.sock)


class _WatchedSecure(http.client.HTTPSConnection, _Watched):
    """Watched from before the handshake: HTTPSConnection connects by what comes behind it here."""


class _Open(urllib.request.HTTPHandler):
    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self.connection: Any = type("Watched", (_Watched,), {"deadline": deadline})

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self.connection, request)


class _OpenSecure(urllib.request.HTTPSHandler):
    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self.connection: Any = type("WatchedSecure", (_WatchedSecure,), {"deadline": deadline})

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self.connection, request)


_jitter = random.Random()  # not the global one, which belongs to what is computed


def _content(prompt: Prompt) -> str | list[dict[str, Any]]:
    if prompt.image is None:
        return prompt.text
    return [
        {"type": "image_url", "image_url": {"url": _data_url(prompt.image)}},
        {"type": "text", "text": prompt.text},
    ]


def _data_url(picture: Picture) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _read_all(reply: Any, limit: int) -> bytes:
    """The body of a reply. Raises _TooLong, and HTTPException where it is cut off."""
    data = bytearray()
    while chunk := reply.read1(_CHUNK):
        data += chunk
        if len(data) > limit:
            raise _TooLong
    if reply.length:
        raise http.client.IncompleteRead(b"", reply.length)
    return bytes(data)


def _message(error: urllib.error.HTTPError, key: str | None) -> str:
    """What an endpoint says about a request that failed."""
    try:
        data = error.read(_CHUNK)
    except (OSError, ValueError, http.client.HTTPException):
        return _said(str(error.reason), key)
    try:
        found = json.loads(data)
        inner = found.get("error", found)
        text = inner.get("message") if isinstance(inner, Mapping) else inner
    except (ValueError, RecursionError, AttributeError):
        text = data[: _CHUNK - len(key or "")].decode(errors="replace")  # no beginning of a key at the end
    return _said(str(text or error.reason), key)


def _seconds(text: str | None) -> float | None:
    """Retry-After in seconds; None where it is a date or nothing."""
    return float(text) if text is not None and re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text.strip()) else None


def _read_key(variable: str) -> str | None:
    key = os.environ.get(variable, "").strip()
    if not key:
        return None
    if not re.fullmatch(r"[!-~]+", key):
        raise ValueError(f"environment variable {variable}: visible characters of ASCII are expected, without spaces")
    return key


def _plain(text: str, key: str | None) -> str:
    """Write a text for the terminal: in one line, without the key and without signs that steer it."""
    text = text.replace(key, "***") if key else text
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _said(text: str, key: str | None) -> str:
    """Take the beginning of what a server says, cut where no key can be cut in two."""
    return _plain(text, key)[:_SHOWN]


def _address(url: str) -> str:
    url = url.rstrip("/")
    return url if url.endswith(_PATH) else url + _PATH


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        whole = False
    if whole and "@" not in url and not parts.query and not parts.fragment and re.fullmatch(r"[!-~]+", url):
        return
    if "@" in url or "?" in url:  # not the value: it may hold a password or a key
        raise ValueError("model.url: an address without user, password and ?...; keys belong in model.key_variable")
    raise ValueError(f"model.url={url}: http://HOST[:PORT][/PATH] or https://... is expected")


def _read(path: Path) -> dict[str, Any]:
    """What a run kept of its settings. Raises ValueError."""
    if not path.exists():
        raise ValueError(f"{path.parent}: no run of a model behind an endpoint, {FILE} is missing")
    found = read_object(path)
    if set(found) != set(_KEPT):
        raise ValueError(f"{path}: damaged; {', '.join(_KEPT)} are expected")
    return found
