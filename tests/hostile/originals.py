"""What hostile cases are changed from, and what is then done with it: one function per kind of thing from elsewhere."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import random
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from hydra import initialize_config_dir
from support import hostile
from support.composing import compose_plain
from support.launching import settings, tiny_base
from support.sampled import READ_FROM_FILES
from support.shipped import shipped
from support.studies import ARTIFACT, make_record, write_study
from support.tiny import prompts

from vlmreason import places
from vlmreason.assembly import build, catalog

Act = Callable[[], object]
ENVS = ("number_line", "ez_points", "points24", "general_points", "general_points_l", "blackjack", "virl", "virl_l")


class Originals:
    """Made once in a folder, which further processes find."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._servers: list[Any] = []

    def made(self, name: str, make: Callable[[Path], object]) -> Path:
        """The folder `name`, filled by `make` where it is not there yet."""
        place = self.folder / name
        if not place.exists():
            beside = self.folder / f".{name}.{os.getpid()}"
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir()
            make(beside)
            beside.rename(place)
        return place

    @functools.cached_property
    def base(self) -> Path:
        return self.made("base", tiny_base)

    @functools.cached_property
    def run(self) -> Path:
        """A finished run of one step, evaluated twice and analysed; its directory lies in a folder of its own."""
        own = {**settings(self.base, 8), "supervision": "mix"}

        def make(folder: Path) -> None:
            self.call("train", *_words(own), out=str(folder))
            [run] = [path.parent for path in folder.glob("*/config.yaml")]
            self.call("evaluate", *_words({"evaluation.num": 2, "evaluation.views": [["text"]]}), run=str(run))
            self.call("analyze", run=str(run))

        return next(path.parent for path in self.made("run", make).glob("*/config.yaml"))

    def train(self, out: Path) -> Act:
        own = {**settings(self.base, 8), "supervision": "mix"}
        return lambda: self.call("train", *_words(own), out=str(out))

    @functools.cached_property
    def exported(self) -> Path:
        place = self.folder / "exported"
        if not place.exists():
            self.call("export", run=str(self.run), out=str(place))
        return place

    @functools.cached_property
    def composed(self) -> Path:
        from vlmreason.models.composed.loading import NanoComposed

        return self.made("composed", NanoComposed().load().save)

    @functools.cached_property
    def policy(self) -> Path:
        from vlmreason.models.contract import Prompt
        from vlmreason.models.nano.model import Nano
        from vlmreason.models.networks.actions import new_actor
        from vlmreason.models.networks.features import ActorSettings

        own = ActorSettings(("a", "b"), 8, 2, pictures=False)
        return self.made("policy", lambda folder: new_actor(Nano().load(), own, Prompt("1", None), 0).save(folder))

    @functools.cached_property
    def exports(self) -> Path:
        def make(folder: Path) -> None:
            for name in catalog.groups()["task"]:
                if name not in READ_FROM_FILES and not name.endswith("_skills"):
                    level = shipped(name).levels[0]
                    self.call(
                        "generate", f"task={name}", f"level={level}", "num=3", "workers=1", out=str(folder / name)
                    )
                    rows = (folder / name / "test" / "metadata.jsonl").read_text().splitlines()
                    answers = [{"id": row["id"], "response": row["answer"]} for row in map(json.loads, rows)]
                    (folder / name / "answers.jsonl").write_text("".join(json.dumps(a) + "\n" for a in answers))
                    table = "index,id,prediction\n" + "".join(f'{i},{a["id"]},"x"\n' for i, a in enumerate(answers))
                    (folder / name / "answers.csv").write_text(table)

        return self.made("exports", make)

    @functools.cached_property
    def studies(self) -> Path:
        def make(folder: Path) -> None:
            own = {key: value for key, value in settings(self.base, 8).items() if key != "scale.num_examples"}
            own = {key: value[0] if isinstance(value, list) else value for key, value in own.items()}
            artifact = {**ARTIFACT, "set": {"task": "table_readout", **own}, "measure": {"level": "simple"}}
            artifact["panels"] = [{"label": "as text", "measure": {"view": "text"}}]
            artifact["series"] = [{"label": "Mix", "set": {"supervision": "mix"}}]
            artifact["x"] = {"label": "examples", "key": "scale.num_examples", "values": [8, 16]}
            artifact["seeds"] = [0]
            del artifact["paper"]
            write_study(folder, fig1=artifact)
            side = {"panel": "as text", "series": "Mix", "x": 8}
            claims = [
                {
                    "id": "one", "text": "A finding", "place": "section 1", "experiment": "made_up/fig1", "left": side,
                    "relation": "above", "bound": 10, "margin": 0,
                },
                {
                    "id": "two", "text": "Another", "place": "section 2", "experiment": "made_up/fig1",
                    "contrasts": [{"left": side, "right": {**side, "x": "last"}, "relation": "within", "margin": 5}],
                },
            ]  # fmt: skip
            (folder / "made_up" / "claims.yaml").write_text(yaml.safe_dump(claims))
            results = folder / "made_up" / "results" / "nano"
            from vlmreason.studies.library import local_record
            from vlmreason.studies.records import Record

            copy = folder / self.run.name
            shutil.copytree(self.run, copy)
            record = local_record(copy, lambda held, run, config: build.evaluated_task(held, run, config))
            shutil.rmtree(copy)
            for number, name in ((8, self.run.name), (16, "other")):
                config = {**record.config, "scale": {**record.config["scale"], "num_examples": number}}
                Record({**record.data, "run": name, "config": config}, results).write(results / f"{name}.json")
            made = make_record({("simple", "text"): "10"}, run="strange")
            made.write(results / "strange.json")

        return self.made("studies", make)

    @functools.cached_property
    def sweep(self) -> Path:
        from vlmreason.assembly import sweeps
        from vlmreason.launch import state

        def make(folder: Path) -> None:
            own = {key: value for key, value in settings(self.base, 8).items() if key != "seed"}
            plan = folder / "plan.yaml"
            plan.write_text(yaml.safe_dump({"command": "train", "grids": [{**own, "seed": [0, 1, 2]}]}))
            with initialize_config_dir(str(places.conf_dir()), version_base="1.3"):
                sweep, configs = sweeps.make_sweep("tiny", sweeps.jobs_of_plan(str(plan), ()))
            plan.unlink()
            sweep = replace(sweep, jobs=tuple(replace(job, run_dir=str(self.run)) for job in sweep.jobs))
            sweeps.freeze(folder, sweep, configs)
            shutil.rmtree(folder / "source")
            where = folder / "submissions" / "1"
            where.mkdir(parents=True)
            (where / "started.json").write_text(json.dumps(asdict(state.Process.this())))
            (where / "profile.json").write_text(json.dumps({"kind": "local", "parallel": 1}))
            attempt = state.Attempt(state.Process.this(), None, 1.0, 2.0, 3.0, "failed", "a message")
            for number, outcome in enumerate(("running", "failed", "done")):
                here = folder / "jobs" / f"{number:04d}"
                state.write_submission(here, state.Submission("local", "HERE/submissions/1", 1.0, 0, {}))
                state.write_state(here, state.State(outcome, 1.0, (replace(attempt, outcome=outcome),)))

        return self.made("sweep", make)

    def server(self) -> Any:
        if not self._servers:
            self._servers.append(_Server())
        return self._servers[0]

    @staticmethod
    def call(command: str, *words: str, **given: str) -> None:
        """Run a command on a configuration that is composed once for the same words."""
        cfg = compose_plain(command, *words)
        sys.argv = ["vlmreason", command, *words]
        importlib.import_module(catalog.module_name(command)).run(cfg | given)


class _Server:
    """Sends `reply`, byte by byte as it is, whatever it is asked."""

    def __init__(self) -> None:
        outer = self
        self.reply = b""

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.wfile.write(outer.reply)
                self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    super().handle()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


def _words(own: dict[str, Any]) -> tuple[str, ...]:
    from vlmreason.assembly.compose import override_value

    return tuple(f"{key}={override_value(v[0] if isinstance(v, list) else v)}" for key, v in own.items())


def _copied(source: Path, place: Path, rng: random.Random, spoil: bool, names: str = "") -> Path:
    """A copy of a folder in which one file is changed, of those that the pattern chooses."""
    target = place / source.name
    shutil.copytree(source, target)
    if spoil:
        whole = sorted(path for path in target.rglob("*") if path.is_file())
        hostile.file(rng, rng.choice([path for path in whole if path.match(names or "*")] or whole))
    return target


def _run(originals: Originals, rng: random.Random, place: Path, spoil: bool) -> Act:
    """A run directory, opened by every command that takes one."""
    names = rng.choice(("config.yaml", "*.json", "*.jsonl", "*")) if spoil else ""
    run = _copied(originals.run, place / "runs", rng, spoil, names)
    call = originals.call
    acts: list[Act] = [
        lambda: call("evaluate", "evaluation.num=1", "evaluation.views=[text]", run=str(run)),
        lambda: call("evaluate", run=str(run), list=True),
        lambda: call("analyze", run=str(run)),
        lambda: call("export", run=str(run), out=str(place / "out")),
        originals.train(run.parent),
    ]
    if spoil:
        return rng.choice(acts)
    return lambda: [act() for act in acts]


def _study(originals: Originals, rng: random.Random, place: Path, spoil: bool) -> Act:
    """Records, claims and artifacts of a study and runs of this machine, of which figures are made and judged."""
    what = rng.choice(("results", "results", "runs", "claims.yaml", "fig1.yaml", "study.yaml"))
    experiments = _copied(originals.studies, place, rng, False)
    runs = place / "runs"
    bad = _copied(originals.run, runs, rng, spoil and what == "runs")
    shutil.copytree(originals.run, runs / f"{bad.name}-good")
    if spoil and what == "results":
        hostile.file(rng, rng.choice(sorted((experiments / "made_up" / "results" / "nano").iterdir())))
    elif spoil and what != "runs":
        hostile.file(rng, experiments / "made_up" / what)

    def act() -> None:
        from vlmreason.assembly import planning
        from vlmreason.commands.collect import slim
        from vlmreason.report import writing
        from vlmreason.report.pages import content
        from vlmreason.studies import artifacts, claims
        from vlmreason.studies.library import collect

        real, names = places.data_dir, artifacts.names
        places.data_dir = lambda name: experiments if name == "experiments" else real(name)  # type: ignore[assignment]
        artifacts.names = names.__wrapped__  # type: ignore[attr-defined]
        try:
            library = planning.open_library("nano", ["made_up"], runs)
            with initialize_config_dir(str(places.conf_dir()), version_base="1.3"):
                result = collect("made_up/fig1", "nano", library, {})
            writing.write(result, place / "fig1")
            for record in library.records:
                with contextlib.suppress(ValueError):  # the report names it
                    content.check(record)
                slim(record.data, False)
            found = claims.read_claims(artifacts.folder() / "made_up" / "claims.yaml", lambda _: result.experiment)
            for claim in found:
                claims.judge(claim, {result.name: result})
        finally:
            places.data_dir, artifacts.names = real, names

    return act


def _problems(originals: Originals, rng: random.Random, place: Path, spoil: bool) -> Act:
    """A file of problems or of responses, scored."""
    name = rng.choice(sorted(path.name for path in originals.exports.iterdir()))
    folder = place / name
    shutil.copytree(originals.exports / name, folder)
    answers = folder / rng.choice(("answers.jsonl", "answers.jsonl", "answers.csv"))
    if spoil:
        hostile.file(rng, rng.choice((folder / "test" / "metadata.jsonl", answers)))
    task = shipped(name)

    def act() -> None:
        from vlmreason.evaluation.scoring import score_file

        score_file(task, folder / "test" / "metadata.jsonl", answers)

    return act


def _generate(originals: Originals, rng: random.Random, place: Path, spoil: bool) -> Act:
    """A folder of problems that is to be continued."""
    folder = _copied(originals.exports / "table_readout", place, rng, False)
    if spoil:
        hostile.file(rng, rng.choice((folder / "test" / ".generate.json", folder / "test" / "metadata.jsonl")))
    words = ("task=table_readout", "level=simple", "num=3", "workers=1")
    return lambda: originals.call("generate", *words, out=str(folder))


def _response(originals: Originals, rng: random.Random, place: Path, spoil: bool) -> Act:
    """A response, to the scorer of every task and the rules of every environment."""
    names = [name for name in (*catalog.groups()["task"], *ENVS) if name not in READ_FROM_FILES]
    chosen = [rng.choice(names)] if spoil else names
    acts = [_response_to(name, rng, spoil) for name in chosen]
    return lambda: [act() for act in acts]


def _response_to(name: str, rng: random.Random, spoil: bool) -> Act:
    from vlmreason.dialogue.parse import split_response
    from vlmreason.envs import rewards
    from vlmreason.envs.base import Env
    from vlmreason.evaluation.scores import judge
    from vlmreason.tasks.base import MAX_RESPONSE_CHARS

    task = shipped(name)
    state = task.sample(rng.choice(task.levels), "test", rng.randrange(5)).state
    gold = task.response(state, rng.choice(("text", "image", "image_via_text"))).text
    response = hostile.text(rng, gold, MAX_RESPONSE_CHARS) if spoil else gold

    def act() -> None:
        verdict = judge(task, state, response)
        assert spoil or verdict.correct or name.endswith("_skills"), name  # some of them have no such view
        assert split_response(task, state, response).text == response
        if isinstance(task, Env):
            outcome = task.turn(state, response, random.Random(0))
            rewards.further(task, list(rewards.offered(task)), state, response, outcome)

    return act


def _reply(originals: Originals, rng: random.Random, place: Path, spoil: bool) -> Act:
    """What a server sends where a model is asked."""
    from vlmreason.models.api import Api

    body = {
        "choices": [{"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
        "usage": {"completion_tokens": 2},
    }
    raw = json.dumps(body).encode()
    status, head = "HTTP/1.1 200 OK", {"Content-Type": "application/json", "Content-Length": str(len(raw))}
    if spoil:
        kind = rng.randrange(4)
        if kind < 2:
            raw = hostile.content(rng, raw, ".json")
            head["Content-Length"] = str(len(raw))
        elif kind == 2:
            name = rng.choice(("Content-Length", "Transfer-Encoding", "Content-Encoding", "Retry-After", "Location"))
            head[name] = rng.choice(("0", "-1", "10", "9" * 30, "chunked", "gzip", "x" * 70_000, "\u00ff", "0.001"))
        status = rng.choice((status, status, status, "HTTP/1.1 404 No", "HTTP/1.1 500", "HTTP/0.9", "x" * 9000, "429"))
    text = status + "\r\n" + "".join(f"{key}: {value}\r\n" for key, value in head.items()) + "\r\n"
    server = originals.server()
    server.reply = text.encode("latin-1") + raw
    os.environ["no_proxy"] = "127.0.0.1"
    model = Api(url=server.url, model="m", timeout=1.0, retries=0, wait=0.01).load()
    return lambda: model.generate(prompts(1), 8)


def _sweep(originals: Originals, rng: random.Random, place: Path, spoil: bool) -> Act:
    """A sweep's directory, of which the state is shown."""
    folder = _copied(originals.sweep, place, rng, False)
    for path in folder.rglob("submission.json"):
        path.write_text(path.read_text().replace("HERE", str(folder)))
    if spoil:
        hostile.file(rng, rng.choice(sorted(path for path in folder.rglob("*.json"))))

    def act() -> None:
        from vlmreason.launch import directory, status, submission

        originals.call("sweep", action="status", dir=str(folder))  # type: ignore[arg-type]
        sweep = directory.read_sweep(folder)
        status.to_json(sweep, status.observe(folder, sweep))
        submission.last_profile(folder, [job.number for job in sweep.jobs])

    return act


def _model(originals: Originals, rng: random.Random, place: Path, spoil: bool) -> Act:
    """A folder with a model, which answers one prompt."""
    kind = rng.choice(("nano", "exported", "composed", "policy"))
    source = originals.run / "checkpoints" / "final" if kind == "nano" else getattr(originals, kind)
    folder = _copied(source, place, rng, spoil, rng.choice(("config.json", "*.json", "*.json", "*")) if spoil else "")

    def act() -> None:
        from vlmreason.models.composed.loading import NanoComposed
        from vlmreason.models.nano.model import Nano
        from vlmreason.models.networks.actions import load_actor
        from vlmreason.models.vlm.hugging_face import HuggingFace

        build.quieten()
        if kind == "policy":
            learner: Any = load_actor(Nano().load(), folder)
        elif kind == "composed":
            learner = NanoComposed().load(folder)
        elif kind == "nano":
            learner = Nano().load(folder)
        else:
            learner = HuggingFace("hf", checkpoint=str(folder), dtype="float32", attention="eager").load()
        learner.generate(prompts(1), 2)

    return act


KINDS: dict[str, tuple[Callable[[Originals, random.Random, Path, bool], Act], int]] = {
    "response": (_response, 30),
    "problems": (_problems, 20),
    "study": (_study, 14),
    "sweep": (_sweep, 10),
    "reply": (_reply, 10),
    "run": (_run, 7),
    "model": (_model, 7),
    "generate": (_generate, 2),
}
"""What is made hostile, with its share of the cases."""
