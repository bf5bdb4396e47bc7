"""conf/model/nano_mixture.yaml: a mixture of features at nano size, two vision towers before the decoder of a base.

Towers are those of models in the nano layout, shipped bases or folders of the user's, or folders as the hub has them,
such as `vlmreason towers` makes. Tong et al. (arXiv 2401.06209,
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
from vlmreason.models.nano.towers import is_of_the_hub, open_tower
from vlmreason.models.vlm.chat_template import TemplateSettings
from vlmreason.models.vlm.learner import Learner


@dataclass(frozen=True)
class NanoMixture:
    """towers: by name, in the order of their features, a shipped base, a folder in the nano layout (a run's
    checkpoints/final) or a tower as the hub has it; language_model: of which the decoder is taken, a base or a folder
    in the nano layout; seed: what `{seed}` in a tower's folder stands for."""

    towers: dict[str, str]
    fusion: Fusion
    name: str = "nano_mixture"
    language_model: str = "nano"
    seed: int | None = None

    def __post_init__(self) -> None:
        if any("{seed}" in id for id in self.towers.values()) != (self.seed is not None):
            raise ValueError(f"model.seed={self.seed}: a number is expected where a tower has {{seed}}, and else none")

    def load(self, trained: Path | None = None) -> Learner:
        """Return the model, with the weights of a run where `trained` is given. Raises ValueError."""
        from vlmreason.models.composed.model import ComposedForConditionalGeneration, compose_config

        base, processor = load_nano(_folder(self.language_model, "model.language_model"))
        template = TemplateSettings(**vars(processor.template))
        if trained is not None:
            return open_composed(trained, template, "float32", ATTENTION)
        seen = {name: _seen(id.replace("{seed}", str(self.seed)), f"model.towers.{name}")
                for name, id in self.towers.items()}  # fmt: skip
        described = describe({name: (tower, config) for name, (_, tower, config) in seen.items()})
        fusion, placeholder = self.fusion.on(described), processor.pictures.placeholder_id
        config = compose_config(described, fusion, base.config.text_config, placeholder, "stretch")
        config._attn_implementation = ATTENTION
        model = ComposedForConditionalGeneration(config)
        model.assemble([module for module, _, _ in seen.values()], base.model.language_model, base.lm_head)
        return join(model, processor.tokenizer, template)


def _folder(id: str, where: str) -> Path:
    """Where a model in the nano layout lies. Raises ValueError."""
    if id not in BASES and not Path(id).is_dir():
        raise ValueError(
            f"{where}={id}: {', '.join(BASES)} or a folder in their layout is expected, for a tower also one that "
            "`vlmreason towers` makes"
        )
    return BASES[id] if id in BASES else Path(id)


def _seen(id: str, where: str) -> tuple[Any, Tower, Mapping[str, Any]]:
    """A tower, how it sees pictures, and its configuration. Raises ValueError."""
    folder = _folder(id, where)
    if is_of_the_hub(folder):
        module, tower = open_tower(folder, where)
        return module, tower, module.config.to_dict()
    model, processor = load_nano(folder)
    pictures: Any = processor.pictures
    mean, std = (pictures.pixel_mean,) * 3, (pictures.pixel_std,) * 3
    tower = Tower(id, pictures.side, mean, std, layer=model.config.vision_feature_layer)
    return model.model.vision_tower, tower, model.config.vision_config.to_dict()
