"""Image-text-to-text models of the Hugging Face hub, through one adapter for all families.

Weights, tokenizer, chat template and picture processor come from one commit of one repository (or a directory);
families.py adds the few lines that differ. Nothing of the repository is executed, and only safetensors are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from vlmreason.files import read_object
from vlmreason.models.contract import Source
from vlmreason.models.vlm import saved
from vlmreason.models.vlm.chat_template import TemplateSettings, read_template
from vlmreason.models.vlm.families import FAMILIES, Family
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.norms import fuse_norms
from vlmreason.models.vlm.processor import Processor
from vlmreason.models.vlm.text import TextCoder
from vlmreason.structure import first_line


@dataclass(frozen=True)
class HuggingFace:
    """conf/model/hf.yaml and the files that build on it."""

    name: str
    id: str | None = None
    revision: str = "main"
    checkpoint: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    attention: Literal["eager", "sdpa", "flash_attention_2"] = "sdpa"
    min_pixels: int | None = None
    max_pixels: int | None = None
    longest_edge: int | None = None
    template: TemplateSettings = field(default_factory=TemplateSettings)

    def load(self, trained: Path | None = None) -> Learner:
        """Return the model, with the weights of a run where `trained` is given. Raises ValueError."""
        at = self._find(trained)
        if at.commit is None:
            saved.check_room(Path(at.place), at.raw, lambda: _empty(at.place))
        with saved.sentences(at.place):
            model = self._model(at.place, at.commit)
        processor = self._processor(at, model.config, model.generation_config)
        fuse_norms(model)
        if at.family.repair is not None:
            at.family.repair(model)
        return Learner(model, processor, at.family.prefixes, at.source)

    def processor(self, trained: Path | None = None) -> Processor:
        """Return the processor of the model that `load` gives, without reading its weights. Raises ValueError."""
        from transformers import AutoConfig, GenerationConfig

        from vlmreason.models.nano import placed  # noqa: F401  # a nano model that was exported opens too

        at = self._find(trained)
        with saved.sentences(at.place):
            config = AutoConfig.from_pretrained(at.place, revision=at.commit, trust_remote_code=False)
            generation = (
                GenerationConfig.from_pretrained(at.place, revision=at.commit or "main")
                if _optional(at.place, at.commit, "generation_config.json")
                else GenerationConfig.from_model_config(config)
            )
        return self._processor(at, config, generation)

    def _find(self, trained: Path | None) -> _Found:
        directory = trained or (Path(self.checkpoint) if self.checkpoint else None)
        place, commit, source = str(directory), None, None
        if directory is not None:
            raw = _local_config(directory)
        elif self.id is None:
            raise ValueError("model.id: missing; a repository on the hub (owner/name), or model.checkpoint=DIR")
        else:
            config = download(self.id, self.revision, "config.json")
            place, commit = self.id, config.parent.name  # the cache keeps a commit's files in a folder of its name
            source = {"id": self.id, "revision": self.revision, "commit": commit}
            raw = saved.read_config(config)
        family = FAMILIES.get(str(raw.get("model_type")))
        if family is None:
            raise ValueError(
                f"{place}: model_type={raw.get('model_type')!r} is unknown; known are {', '.join(FAMILIES)}"
            )
        for name in saved.TOKENIZER_FILES:  # without them the library goes on: an empty vocabulary, other end tokens
            if (path := _optional(place, commit, name)) is None:
                raise ValueError(f"{place}: the model has no {name}")
            saved.check_tokenizer_file(path)
        for name in ("generation_config.json", "preprocessor_config.json", "processor_config.json"):
            if path := _optional(place, commit, name):
                saved.read_config(path)
        return _Found(place, commit, family, source, raw)

    def _processor(self, at: _Found, config: Any, generation: Any) -> Processor:
        from transformers import AutoTokenizer

        with saved.sentences(at.place):
            tokenizer: Any = AutoTokenizer.from_pretrained(at.place, revision=at.commit, trust_remote_code=False)
            shown = self._image_processor(at.place, at.commit, at.family)
            pictures = at.family.pictures(config, shown, TextCoder(tokenizer))
        tokenizer.chat_template = _chat_template(at.place, at.commit, tokenizer)  # saved with the tokenizer
        eos_ids = _eos_ids(generation, tokenizer)
        template = read_template(
            tokenizer,
            placeholder=str(tokenizer.convert_ids_to_tokens(pictures.placeholder_id)),
            ends=tokenizer.convert_ids_to_tokens(eos_ids),
            settings=self.template,
        )
        return Processor(tokenizer, template, pictures, eos_ids)

    def _model(self, place: str, commit: str | None) -> Any:
        from transformers import AutoModelForImageTextToText

        from vlmreason.models.nano import placed  # noqa: F401  # a nano model that was exported opens too

        try:
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                place,
                revision=commit,
                trust_remote_code=False,
                dtype=getattr(torch, self.dtype),
                attn_implementation=self.attention,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # reported below, in one sentence
                output_loading_info=True,
            )
        except (ImportError, ValueError) as error:
            if "attention" not in str(error).lower():
                raise
            raise ValueError(f"model.attention={self.attention}: {first_line(error)}") from error
        model, found = loaded
        mismatched = [name for name, *_ in found["mismatched_keys"]]
        if wrong := sorted([*found["missing_keys"], *mismatched]):
            raise ValueError(f"{place}: the weights are not those of config.json ({wrong[0]})")
        saved.answer_greedily(model)  # Qwen has a repetition penalty and a temperature
        return model

    def _image_processor(self, place: str, commit: str | None, family: Family) -> Any:
        from transformers import AutoImageProcessor

        processor: Any = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            place, revision=commit, trust_remote_code=False, backend="pil"
        )
        for limit in ("min_pixels", "max_pixels", "longest_edge"):
            value = getattr(self, limit)
            if value is None:
                continue
            if limit not in family.limits:
                has = f"there are {', '.join(family.limits)}" if family.limits else "it has one size"
                raise ValueError(f"model.{limit}={value}: has no effect on the pictures of this model; {has}")
            processor.size = dict(processor.size) | {family.limits[limit]: value}
        return processor


@dataclass(frozen=True)
class _Found:
    """Where a model's files are: a directory, or a repository at a commit. raw: its config.json."""

    place: str
    commit: str | None
    family: Family
    source: Mapping[str, str] | None
    raw: Mapping[str, Any]


def download(id: str, revision: str, name: str) -> Path:
    """Return a file of a repository, from the cache where it is there. Raises ValueError."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(hf_hub_download(id, name, revision=revision))
    except GatedRepoError as error:
        raise ValueError(
            f"model.id={id}: access must be granted on https://huggingface.co/{id}, and a token given "
            f"(`hf auth login` or HF_TOKEN)"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ValueError(
            f"model.id={id}: no such repository on the hub, or it is private and needs HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise ValueError(f"model.revision={revision}: {id} has no such branch, tag or commit") from error
    except LocalEntryNotFoundError as error:
        raise ValueError(
            f"model.id={id}: the hub cannot be reached, and revision {revision} is not in the cache "
            f"{constants.HF_HUB_CACHE} (HF_HOME chooses another; `hf download {id}` fills it where there is a network)"
        ) from error
    except EntryNotFoundError as error:
        raise ValueError(f"model.id={id}: the repository has no {name}") from error
    except OSError as error:
        raise ValueError(f"model.id={id}: {first_line(error)}") from error


def check_source(recorded: Source | None, found: Source | None) -> None:
    """Raise ValueError where a run began with other commits (`Learner.source`) than those found now."""
    if not recorded or not found:
        return
    pairs = zip(*([side] if isinstance(side, Mapping) else side for side in (recorded, found)), strict=False)
    for old, new in pairs:
        if old["id"] == new["id"] and old["commit"] != new["commit"]:
            setting = f"{new.get('part', 'model')}.revision"
            raise ValueError(
                f"{setting}={new['revision']}: {new['id']} was at commit {old['commit']} when the run began and is at "
                f"{new['commit']} now; {setting}={old['commit']} continues it"
            )


def _local_config(directory: Path) -> Mapping[str, Any]:
    if not (directory / "config.json").exists():
        raise ValueError(f"{directory}: no model there, config.json is missing")
    return saved.read_config(directory / "config.json")


def _empty(place: str) -> Any:
    """The model of a folder without weights."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    from vlmreason.models.nano import placed  # noqa: F401  # a nano model that was exported opens too

    make: Any = AutoModelForImageTextToText.from_config
    return make(AutoConfig.from_pretrained(place, trust_remote_code=False))


def _chat_template(place: str, commit: str | None, tokenizer: Any) -> str | None:
    """Jinja source: of the model as a whole where it has one (two file layouts), else of its tokenizer."""
    if jinja := _optional(place, commit, "chat_template.jinja"):
        return saved.read_template_file(jinja)
    if legacy := _optional(place, commit, "chat_template.json"):
        return str(read_object(legacy).get("chat_template"))
    found = tokenizer.chat_template
    return found.get("default") if isinstance(found, dict) else found


def _optional(place: str, commit: str | None, name: str) -> Path | None:
    if commit is None:
        path = Path(place) / name
        return path if path.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(place, name, revision=commit))
    except EntryNotFoundError:
        return None


def _eos_ids(generation: Any, tokenizer: Any) -> list[int]:
    """All tokens that end a response, the tokenizer's own first."""
    listed = generation.eos_token_id
    found = [tokenizer.eos_token_id, *(listed if isinstance(listed, list) else [listed])]
    return list(dict.fromkeys(token for token in found if token is not None))
