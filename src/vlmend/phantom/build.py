"""Builds a phantom: distil, train the eye, align on text, tune on pictures, write the weights.

Each stage leaves its result in the build folder and is skipped when that is there, so a stopped
build goes on. Only what is learnt is written out (adapter, projector, tower); the backbone never.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vlmend.phantom.assemble import LORA_TARGETS, Backbone, Parts, backbone, parts
from vlmend.phantom.recipe import RECIPES, Mix, Recipe
from vlmend.phantom.rows import draw_rows, encode, prompts_to_distil
from vlmend.phantom.tower import train_eye
from vlmend.training.loop import LoopSettings, train
from vlmend.training.losses import reply_loss

__all__ = ["DISTILLED_TOKENS", "build"]

DISTILLED_TOKENS = 24
"""Length of a distilled reply; a longer one is cut there and teaches no end."""

Say = Callable[[str], None]


def build(recipe: Recipe, folder: Path, say: Say) -> Path:
    """Run every stage of a recipe and return the file with what was learnt."""
    folder.mkdir(parents=True, exist_ok=True)
    base = backbone()
    replies = _distil(recipe, base, folder / "replies.json", say)
    eye = _eye(recipe, base, folder / "eye.safetensors", say)
    joined = parts(base, eye)
    _add_lora(joined, recipe)
    _tune(joined, recipe, recipe.align, "align", recipe.align_steps, recipe.align_rate, replies, folder, say)
    _tune(joined, recipe, recipe.see, f"see-{recipe.name}", recipe.see_steps, recipe.see_rate, replies, folder, say)
    out = folder / f"{recipe.name}.safetensors"
    save_file(_learnt(joined), out, {"recipe": json.dumps(asdict(recipe)), "format": "pt"})
    return out


def _distil(recipe: Recipe, base: Backbone, file: Path, say: Say) -> dict[str, str]:
    """The unaligned backbone's own greedy replies to the prompts that the recipe needs."""
    replies: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    wanted = sorted((p for p in prompts_to_distil(recipe) if p not in replies), key=len)
    for start in range(0, len(wanted), 48):
        prompts = wanted[start : start + 48]
        replies |= dict(zip(prompts, _replies(base, prompts), strict=True))
        file.write_text(json.dumps(replies, indent=0))
        say(f"distil {min(start + 48, len(wanted))}/{len(wanted)}")
    return replies


@torch.inference_mode()
def _replies(base: Backbone, prompts: list[str]) -> list[str]:
    texts = [f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n" for prompt in prompts]
    inputs = base.tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    out = base.model.generate(**inputs, max_new_tokens=DISTILLED_TOKENS, do_sample=False)
    return base.tokenizer.batch_decode(out[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)


def _eye(recipe: Recipe, base: Backbone, file: Path, say: Say) -> dict[str, Tensor]:
    if not file.exists():
        tokenizer = base.tokenizer
        eye = train_eye(
            base.model.get_input_embeddings().weight.detach(),
            lambda name: tokenizer(" " + name, add_special_tokens=False).input_ids,
            steps=recipe.eye_steps, batch=64, rate=1e-3, seed=recipe.seed,
            log=lambda row: say(f"eye {row}"),
        )  # fmt: skip
        save_file(eye.state_dict(), file)
    return load_file(file)


def _add_lora(joined: Parts, recipe: Recipe) -> None:
    torch.manual_seed(recipe.seed)
    for parameter in joined.model.parameters():
        parameter.requires_grad_(False)
    config = LoraConfig(r=recipe.rank, lora_alpha=2 * recipe.rank, target_modules=list(LORA_TARGETS))
    inject_adapter_in_model(config, joined.model.model.language_model)


def _tune(
    joined: Parts, recipe: Recipe, mix: Mix, stage: str, steps: int, rate: float,
    replies: Mapping[str, str], folder: Path, say: Say,
) -> None:  # fmt: skip
    """Train the adapter, and the projector too where pictures are shown."""
    model = joined.model
    projector = model.model.multi_modal_projector if stage.startswith("see") else nn.Module()
    parameters = [p for name, p in model.named_parameters() if "lora_" in name]
    parameters += [p.requires_grad_() for p in projector.parameters()]

    def loss_of_step(step: int) -> Tensor:
        batch = encode(joined.processor, draw_rows(recipe, mix, stage, step, replies))
        kept = batch.labels.shape[1]
        logits = model(**batch.inputs, logits_to_keep=kept + 1, use_cache=False).logits
        return reply_loss(logits[:, :-1], batch.labels)

    def report(step: int, loss: float) -> None:
        if step % 10 == 0:
            say(f"{stage} {step}/{steps} loss {loss:.3f}")

    settings = LoopSettings(steps=steps, rate=rate)
    train(parameters, loss_of_step, settings, folder / stage, report)


def _learnt(joined: Parts) -> dict[str, Tensor]:
    """Adapter, projector and tower in half precision: what the project ships."""
    learnt: dict[str, Tensor] = {}
    for name, module in joined.model.model.language_model.named_modules():
        if hasattr(module, "lora_A"):
            learnt[f"adapter.{name}.A"] = module.lora_A["default"].weight
            learnt[f"adapter.{name}.B"] = module.lora_B["default"].weight
    learnt |= {f"projector.{k}": v for k, v in joined.model.model.multi_modal_projector.state_dict().items()}
    learnt |= {f"tower.{k}": v for k, v in joined.model.model.vision_tower.state_dict().items()}
    return {name: tensor.detach().half().contiguous() for name, tensor in learnt.items()}


if __name__ == "__main__":  # python -m vlmend.phantom.build phantom build/
    print(build(RECIPES[sys.argv[1]], Path(sys.argv[2]), print))
