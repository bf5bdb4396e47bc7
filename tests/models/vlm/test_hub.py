"""Models of the hub: from its cache, pinned to a commit; what cannot be loaded ends with one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import load_file, save_file
from support.families import TINY, write_tiny

from vlmreason.models.vlm.chat_template import TemplateSettings
from vlmreason.models.vlm.hugging_face import HuggingFace, check_source

ID, COMMIT = "owner/model", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("qwen2_5_vl", tmp_path_factory.mktemp("made"))


@pytest.fixture
def saved(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


@pytest.fixture
def cache(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache as `hf download` fills it, in a place of its own."""
    repository = tmp_path / "hub" / "models--owner--model"
    shutil.copytree(made, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return repository


def load(**changes: Any) -> Any:
    return HuggingFace(**{"name": "test", "dtype": "float32"} | changes).load()


def sentence_of(**changes: Any) -> str:
    with pytest.raises(ValueError) as raised:
        load(**changes)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_from_the_cache_with_its_commit(cache: Path, made: Path) -> None:
    learner = load(id=ID)
    assert learner.source == {"id": ID, "revision": "main", "commit": COMMIT}
    assert load(id=ID, revision=COMMIT).source["commit"] == COMMIT
    local = load(checkpoint=str(made))
    assert local.source is None
    for name, parameter in local.model.named_parameters():
        assert torch.equal(parameter, learner.model.get_parameter(name))
    assert local.processor.template == learner.processor.template


def test_a_revision_that_moved_is_noticed(cache: Path) -> None:
    recorded = load(id=ID).source
    check_source(recorded, load(id=ID).source)
    check_source(None, recorded)
    other = "f" * 40
    (cache / "snapshots" / COMMIT).rename(cache / "snapshots" / other)
    (cache / "refs" / "main").write_text(other)
    with pytest.raises(
        ValueError, match=f"at commit {COMMIT} when the run began and is at {other} now; model.revision="
    ):
        check_source(recorded, load(id=ID).source)


def test_what_the_hub_refuses(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = sentence_of(id="owner/other")
    assert found.startswith("model.id=owner/other: the hub cannot be reached")
    assert str(cache.parent) in found
    assert "revision v2 is not in the cache" in sentence_of(id=ID, revision="v2")
    assert sentence_of().startswith("model.id: missing")
    assert "no such repository" in sentence_of(id="not a name")
    import httpx

    response = httpx.Response(403, request=httpx.Request("HEAD", "https://huggingface.co"))
    for error, sentence in (
        (errors.GatedRepoError("gated", response=response), "access must be granted on https://huggingface.co/owner/m"),
        (errors.RepositoryNotFoundError("none", response=response), "model.id=owner/model: no such repository"),
        (
            errors.RevisionNotFoundError("none", response=response),
            "model.revision=main: owner/model has no such branch",
        ),
        (
            errors.RemoteEntryNotFoundError("none", response=response),
            "model.id=owner/model: the repository has no config",
        ),
        (OSError("disk full\nmore"), "model.id=owner/model: disk full"),
    ):

        def refuse(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
        assert sentence in sentence_of(id=ID)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_weights(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


BIAS = "visual.merger.mlp.0.bias"


def without_bias(tensors: dict[str, Any]) -> None:
    del tensors[next(name for name in tensors if name.endswith(BIAS))]


def other_bias(tensors: dict[str, Any]) -> None:
    tensors[next(name for name in tensors if name.endswith(BIAS))] = torch.zeros(3)


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("config.json", Path.unlink, "no model there, config.json is missing"),
    ("config.json", cut, "config.json: the file is damaged"),
    ("config.json", lambda path: path.write_text("[]"), "config.json: damaged: a JSON object"),
    ("config.json", lambda path: edit(path, model_type="bert"), "model_type='bert' is unknown; known are qwen2_vl, "),
    ("model.safetensors", Path.unlink, "safetensors"),
    ("model.safetensors", cut, "model"),
    ("model.safetensors", lambda path: change_weights(path, without_bias), "not those of config.json"),
    ("model.safetensors", lambda path: change_weights(path, other_bias), "not those of config.json"),
    ("tokenizer.json", cut, "model"),
    ("tokenizer.json", Path.unlink, "the model has no tokenizer.json"),
    ("tokenizer_config.json", Path.unlink, "the model has no tokenizer_config.json"),
    ("generation_config.json", cut, "generation_config.json: the file is damaged"),
    ("preprocessor_config.json", Path.unlink, "preprocessor_config.json"),
    ("preprocessor_config.json", cut, "preprocessor_config.json"),
    ("chat_template.jinja", Path.unlink, "model.template: the model has no chat template"),
    ("chat_template.jinja", lambda path: path.write_text("{{ nonsense"), "model.template: the chat template fails"),
    (
        "chat_template.jinja",
        lambda path: path.write_text("{{ raise_exception('') }}"),
        "the chat template fails (Templ",
    ),
    (
        "chat_template.jinja",
        lambda path: path.write_text("{{ ''.__class__.__mro__[1].__subclasses__() }}"),
        "the chat template fails (access to attribute '__class__'",
    ),
    ("chat_template.jinja", lambda path: path.write_text("always the same"), "writes the response 0 times"),
]


@pytest.mark.parametrize(("name", "damage", "sentence"), DAMAGES, ids=[f"{d[0]}-{d[2][:20]}" for d in DAMAGES])
def test_damaged(saved: Path, name: str, damage: Callable[[Path], object], sentence: str) -> None:
    damage(saved / name)
    found = sentence_of(checkpoint=str(saved))
    assert sentence in found
    assert str(saved) in found or found.startswith("model.template")


def test_weights_of_another_format_are_refused(saved: Path) -> None:
    """Pickled weights may run code when they are read."""
    torch.save({}, saved / "pytorch_model.bin")
    (saved / "model.safetensors").unlink()
    assert str(saved) in sentence_of(checkpoint=str(saved))


def test_attention_that_is_not_there(tmp_path: Path) -> None:
    directory = write_tiny("mllama", tmp_path)
    found = sentence_of(checkpoint=str(directory), attention="flash_attention_2")
    assert found.startswith("model.attention=flash_attention_2: MllamaForConditionalGeneration does not support")


def test_templates_that_say_too_little(saved: Path) -> None:
    source = (saved / "chat_template.jinja").read_text()
    for old, new, sentence in (
        ("<|im_end|>\n{% endif %}{% endfor %}", "\n{% endif %}{% endfor %}", "model.template.end: behind a response"),
        ("<|im_start|>assistant\n{%", "<|im_start|>assistant\nSure!{%", "before a response the chat template has"),
        ("<|vision_start|><|image_pad|>", "<|vision_start|>", "writes <|image_pad|> before the prompt 0 times"),
    ):
        assert old in source
        (saved / "chat_template.jinja").write_text(source.replace(old, new))
        assert sentence in sentence_of(checkpoint=str(saved))
    end = TemplateSettings(end="</s>")
    assert "model.template.end='</s>': the model ends a response with <|im_end|> or " in sentence_of(
        checkpoint=str(saved), template=end
    )


def test_a_template_of_ones_own(saved: Path) -> None:
    own = TemplateSettings(
        text=("Q: ", "\nA:"), image=("<|vision_start|>", "<|vision_end|>Q: ", "\nA:"), lead=" ", end="<|im_end|>"
    )
    (saved / "chat_template.jinja").unlink()
    learner = load(checkpoint=str(saved), template=own)
    assert learner.processor.tokenizer.decode(learner.processor.prompt_ids("why?", None)) == "Q: why?\nA:"


def test_the_template_does_not_depend_on_the_day(tmp_path: Path) -> None:
    directory = write_tiny("mllama", tmp_path)
    assert "strftime_now" in TINY["mllama"].template
    assert "26 Jul 2024" in load(checkpoint=str(directory)).processor.template.text[0]


@pytest.mark.parametrize("place", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_code_of_a_repository_is_never_run(
    saved: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where a person at the keyboard would say yes."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    trace = tmp_path / "ran"
    (saved / "evil.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Evil: pass\n")
    content = json.loads((saved / place).read_text())
    kinds = ("AutoConfig", "AutoModelForImageTextToText", "AutoImageProcessor", "AutoProcessor")
    content["auto_map"] = dict.fromkeys(kinds, "evil.Evil") | {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    for key in ("tokenizer_class", "image_processor_type"):
        if key in content:
            content[key] = "Evil"
    (saved / place).write_text(json.dumps(content))
    try:
        load(checkpoint=str(saved))
    except ValueError as error:
        assert "\n" not in str(error)
    assert not trace.exists()
