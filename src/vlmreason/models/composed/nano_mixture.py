"""conf/model/nano_mixture.yaml: a mixture of features at nano size, two vision towers before the decoder of a base.

Towers are those of models in the nano layout: shipped bases, or folders of the user's. Tong et al. (arXiv 2401.06209,
section 3.4) mix CLIP and DINOv2 in this way. The projector begins anew, the same in every run of a mixture, so that one
tower twice, either tower alone (alpha 1 or 0) and both are compared on equal terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmreason.models.composed.fusion import Fusion
from vlmreason.models.composed.loading import join, open_composed
from vlmreason.models.composed.towers import Tower, describe
from vlmreason.models.nano.model import ATTENTION, BASES, load_nano
from vlmreason.models.vlm.chat_template import TemplateSettings
from vlmreason.models.vlm.learner import Learner


@dataclass(frozen=True)
class NanoMixture:
    """towers: by name, in the order of their features, a shipped base or a folder in the nano layout (a run's
    checkpoints/final); language_model: of which the decoder is taken, in the same way."""

    towers: dict[str, str]
    fusion: Fusion
    name: str = "nano_mixture"
    language_model: str = "nano"

    def load(self, trained: Path | None = None) -> Learner:
        """Return the model, with the weights of a run where `trained` is given. Raises ValueError."""
        from vlmreason.models.composed.model import ComposedForConditionalGeneration, compose_config

        base, processor = load_nano(_folder(self.language_model, "model.language_model"))
        template = TemplateSettings(**vars(processor.template))
        if trained is not None:
            return open_composed(trained, template, "float32", ATTENTION)
        seen = {name: load_nano(_folder(id, f"model.towers.{name}")) for name, id in self.towers.items()}
        described = describe({name: _described(self.towers[name], *one) for name, one in seen.items()})
        fusion, placeholder = self.fusion.on(described), processor.pictures.placeholder_id
        config = compose_config(described, fusion, base.config.text_config, placeholder, "stretch")
        config._attn_implementation = ATTENTION
        model = ComposedForConditionalGeneration(config)
        model.assemble([one.model.vision_tower for one, _ in seen.values()], base.model.language_model, base.lm_head)
        return join(model, processor.tokenizer, template)


def _folder(id: str, where: str) -> Path:
    """Where a model in the nano layout lies. Raises ValueError."""
    if id not in BASES and not Path(id).is_dir():
        raise ValueError(f"{where}={id}: {', '.join(BASES)} or a folder in their layout is expected")
    return BASES[id] if id in BASES else Path(id)


def _described(id: str, model: Any, processor: Any) -> tuple[Tower, Mapping[str, Any]]:
    """A tower as it sees pictures, with its configuration."""
    pictures = processor.pictures
    mean, std = (pictures.pixel_mean,) * 3, (pictures.pixel_std,) * 3
    tower = Tower(id, pictures.side, mean, std, layer=model.config.vision_feature_layer)
    return tower, model.config.vision_config.to_dict()
