"""A family's way of writing a turn, read off the chat template that its model comes with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlmreason.models.vlm.processor import Template
from vlmreason.structure import first_line

PROMPT, RESPONSE = "promptgoeshere", "responsegoeshere"
DATE = "26 Jul 2024"
"""Some templates write today's date, and a run must not depend on the day: this is Llama 3.2's own fallback."""


@dataclass(frozen=True)
class TemplateSettings:
    """model.template: what is given replaces what the chat template says; see `Template` for the parts."""

    text: tuple[str, str] | None = None
    image: tuple[str, str, str] | None = None
    lead: str | None = None
    end: str | None = None


def read_template(tokenizer: Any, placeholder: str | None, ends: Sequence[str], settings: TemplateSettings) -> Template:
    """Return the `Template` of a tokenizer's chat template, which is not asked where text, image and end are given.

    It is rendered with a marker for prompt and response, without and with a picture, and cut at the markers.
    `placeholder`: the token that stands for a picture in it; None for a language model's, to which pictures are
    unknown: they stand on a line before the prompt. `ends`: spelling of the model's end tokens. Raises ValueError
    where a part cannot be found.
    """
    s = settings
    if tokenizer.chat_template is None and None in (s.text, s.image, s.end):
        raise ValueError("model.template: the model has no chat template; text, image and end must be given")
    lead, end = s.lead, s.end
    if None in (s.text, s.image, s.end) and None in (lead, end):
        found_lead, found_end = _around_response(tokenizer, placeholder)
        lead = found_lead if lead is None else lead
        end = _end(found_end, ends) if end is None else end
    assert end is not None
    if not end.endswith(tuple(ends)):
        raise ValueError(f"model.template.end={end!r}: the model ends a response with {' or '.join(ends)}")
    text = s.text or _text(tokenizer, placeholder)
    if s.image is not None:
        image = s.image
    else:
        image = (text[0], "\n", text[1]) if placeholder is None else _image(tokenizer, placeholder)
    return Template(text=text, image=image, end=end, lead=lead or "")


def write_template(tokenizer: Any, placeholder: str, template: Template) -> str:
    """Return the Jinja source that writes turns as `template` does: the tokenizer's own where it does so already."""
    if tokenizer.chat_template is not None and _writes(tokenizer, placeholder, template):
        return str(tokenizer.chat_template)
    (before, after), image = template.text, template.image
    shown = "".join(f"{{{{ {json.dumps(part)} }}}}" for part in (image[0], placeholder, image[1]))
    return (
        "{% for message in messages %}{% set given = message['content'] %}"
        "{% set parts = [{'type': 'text', 'text': given}] if given is string else given %}"
        "{% set pictures = parts | selectattr('type', 'equalto', 'image') | list %}"
        "{% set text = parts | selectattr('type', 'equalto', 'text') | map(attribute='text') | join %}"
        "{% if message['role'] == 'assistant' %}"
        f"{{{{ {json.dumps(template.lead)} + text + {json.dumps(template.end)} }}}}"
        f"{{% elif pictures %}}{shown}{{{{ text + {json.dumps(image[2])} }}}}"
        f"{{% else %}}{{{{ {json.dumps(before)} + text + {json.dumps(after)} }}}}{{% endif %}}{{% endfor %}}"
    )


def _writes(tokenizer: Any, placeholder: str, template: Template) -> bool:
    """Whether the tokenizer's chat template writes the turns of a prompt as `template` does."""
    first, before, after = template.image
    turns = {False: PROMPT.join(template.text), True: f"{first}{placeholder}{before}{PROMPT}{after}"}
    try:
        return all(_render(tokenizer, placeholder, picture) == turn for picture, turn in turns.items())
    except ValueError:
        return False


def _render(tokenizer: Any, placeholder: str | None, picture: bool = False, response: bool = False) -> str:
    """A turn with the marker of the prompt, up to the response or with the marker of it."""
    content: Any = [{"type": "image"}] * picture + [{"type": "text", "text": PROMPT}]
    answer: Any = [{"type": "text", "text": RESPONSE}]
    if placeholder is None:  # language models know strings
        content, answer = PROMPT, RESPONSE
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if response:
        messages.append({"role": "assistant", "content": answer})
    try:
        return str(
            tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=not response, date_string=DATE
            )
        )
    except Exception as error:  # a template is a program: it may raise anything
        line = first_line(error)
        raise ValueError(f"model.template: the chat template fails ({line})") from error


def _text(tokenizer: Any, placeholder: str | None) -> tuple[str, str]:
    before, after = _cut(_render(tokenizer, placeholder), PROMPT, "the prompt")
    return before, after


def _image(tokenizer: Any, placeholder: str) -> tuple[str, str, str]:
    turn = _render(tokenizer, placeholder, picture=True)
    before, after = _cut(turn, PROMPT, "the prompt of a turn with a picture")
    first, between = _cut(before, placeholder, f"{placeholder} before the prompt")
    return first, between, after


def _around_response(tokenizer: Any, placeholder: str | None) -> tuple[str, str]:
    """What stands between the turn and its response, and behind the response."""
    turn = _render(tokenizer, placeholder)
    whole, end = _cut(_render(tokenizer, placeholder, response=True), RESPONSE, "the response")
    lead = whole.removeprefix(turn)
    if not whole.startswith(turn) or lead.strip():
        raise ValueError(
            f"model.template: before a response the chat template has {whole[-40:]!r}, before a generated one "
            f"{turn[-40:]!r}; text, image, lead and end must be given"
        )
    return lead, end


def _end(found: str, ends: Sequence[str]) -> str:
    """Up to the first end token; further text (a line break, mostly) is never generated."""
    places = [(found.index(token) + len(token), token) for token in ends if token in found]
    if not places:
        raise ValueError(
            f"model.template.end: behind a response the chat template has {found!r}, none of {', '.join(ends)}; "
            f"give one"
        )
    return found[: min(places)[0]]


def _cut(text: str, at: str, what: str) -> tuple[str, str]:
    if text.count(at) != 1:
        raise ValueError(
            f"model.template: the chat template writes {what} {text.count(at)} times; text, image and end must be given"
        )
    before, _, after = text.partition(at)
    return before, after
