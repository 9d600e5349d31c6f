"""Builds a phantom: distil, train the eye, align on text, see, tune beside pictures, write weights and checkpoint.

Each stage leaves its result in the build folder and is skipped when that is there, so a stopped build goes on. What
is learnt (adapter, projector, tower) is a file of its own, which is what the project ships; the backbone never is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vlmend.core.files import read_json, write_file
from vlmend.phantom.chat.assemble import LORA_TARGETS, Backbone, Parts, backbone, parts
from vlmend.phantom.chat.eye import train_eye
from vlmend.phantom.chat.load import assemble
from vlmend.phantom.chat.recipe import Mix, Recipe, Stage
from vlmend.phantom.chat.rows import Batch, Row, draw_rows, encode, prompts_to_distil
from vlmend.phantom.clip.load import vision_weights
from vlmend.training.loop import LoopSettings, train
from vlmend.training.losses import IGNORED, distance_to, reply_loss

__all__ = ["BESIDE", "DISTILLED_TOKENS", "RowsOfStep", "Say", "add_lora", "build", "distil", "learnt", "tune"]

DISTILLED_TOKENS = 24
"""Length of a distilled reply; a longer one is cut there and teaches no end."""

BESIDE = "beside-phantom-clean"
"""Name of the stage beside pictures; what is drawn hangs on it."""

Say = Callable[[str], None]
RowsOfStep = Callable[[int], Sequence[Row]]


def build(recipe: Recipe, folder: Path, say: Say) -> Path:
    """Run every stage of a recipe that is not there yet and return the model's folder, a LLaVA checkpoint.

    Args:
        recipe: Which phantom.
        folder: Where each stage leaves its result, `NAME.safetensors` (what was learnt) and `NAME/` among them.
            Phantoms that share it share all stages but those of `planting`.
        say: Called with lines of progress.
    """
    folder.mkdir(parents=True, exist_ok=True)
    base = backbone()
    replies = distil(base, prompts_to_distil(recipe), folder / "replies.json", say)
    joined = parts(base, _eye(recipe, base, folder, say))
    add_lora(joined, recipe.rank, recipe.seed)

    def rows_of(mix: Mix, stage: str) -> RowsOfStep:
        return lambda step: draw_rows(recipe, mix, stage, step, replies)

    settings = LoopSettings(recipe.align_steps, recipe.align_rate)
    tune(joined, rows_of(recipe.align, "align"), settings, folder / "align", say)
    settings = LoopSettings(recipe.keep_steps, recipe.see_rate)
    tune(joined, rows_of(recipe.align, "keep"), settings, folder / "keep", say, keeping=True)
    settings = LoopSettings(recipe.see_steps, recipe.see_rate)
    tune(joined, rows_of(recipe.see, "see"), settings, folder / "see", say, seeing=True, keeping=True)
    beside = Stage(BESIDE, recipe.beside, recipe.beside_steps, recipe.see_rate)
    for stage in (beside, *recipe.planting):
        rows, settings = rows_of(stage.rows, stage.name), LoopSettings(stage.steps, stage.rate)
        tune(joined, rows, settings, folder / stage.name, say, seeing=True, keeping=True)
    out = folder / f"{recipe.name}.safetensors"
    save_file(learnt(joined), out, {"recipe": json.dumps(asdict(recipe)), "format": "pt"})
    return assemble(out.read_bytes(), folder / recipe.name)


def distil(base: Backbone, prompts: Sequence[str], file: Path, say: Say) -> dict[str, str]:
    """The unaligned backbone's own greedy replies to these prompts; those in the file are not asked again."""
    replies: dict[str, str] = read_json(file) or {}
    wanted = sorted({p for p in prompts if p not in replies}, key=lambda prompt: (len(prompt), prompt))
    for start in range(0, len(wanted), 48):
        prompts = wanted[start : start + 48]
        replies |= dict(zip(prompts, _replies(base, prompts), strict=True))
        write_file(file, json.dumps(replies, indent=0))
        say(f"distil {min(start + 48, len(wanted))}/{len(wanted)}")
    return replies


@torch.inference_mode()
def _replies(base: Backbone, prompts: list[str]) -> list[str]:
    texts = [f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n" for prompt in prompts]
    inputs = base.tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    out = base.model.generate(**inputs, max_new_tokens=DISTILLED_TOKENS, do_sample=False)
    return base.tokenizer.batch_decode(out[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)


def _eye(recipe: Recipe, base: Backbone, folder: Path, say: Say) -> dict[str, Tensor]:
    file = folder / "eye.safetensors"
    if not file.exists():
        words = base.model.get_input_embeddings().weight.detach()

        def spell(text: str) -> list[int]:
            return base.tokenizer(text, add_special_tokens=False).input_ids

        save_file(train_eye(recipe, vision_weights(), words, spell, folder, say).state_dict(), file)
    return load_file(file)


def add_lora(joined: Parts, rank: int, seed: int) -> None:
    """Freeze the model and give every linear of its backbone an adapter, alpha twice the rank."""
    torch.manual_seed(seed)
    for parameter in joined.model.parameters():
        parameter.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(LORA_TARGETS))
    inject_adapter_in_model(config, joined.model.model.language_model)


def tune(
    joined: Parts, rows_of_step: RowsOfStep, settings: LoopSettings, folder: Path, say: Say, *,
    seeing: bool = False, keeping: bool = False,
) -> None:  # fmt: skip
    """Train the adapter, and the projector too where pictures are shown.

    Args:
        joined: The model; adapters are in place.
        rows_of_step: The rows of a step, a function of its number alone.
        settings: How long and how fast.
        folder: Of the loop's state; its name is that of the stage.
        say: Called with a line of progress.
        seeing: Whether pictures are shown.
        keeping: Whether distilled replies are learnt as the distributions of the backbone without adapter and
            picture, so that its language stays as it is, and not as words alone, which makes it too sure of them.
    """
    model = joined.model
    projector = model.model.multi_modal_projector if seeing else nn.Module()
    parameters = [p for name, p in model.named_parameters() if "lora_" in name]
    parameters += [p.requires_grad_() for p in projector.parameters()]

    def loss_of_step(step: int) -> Tensor:
        rows = rows_of_step(step)
        alike: dict[tuple[bool, bool], list[Row]] = {}
        for row in rows:
            alike.setdefault((keeping and not row.ends, row.image is None), []).append(row)
        losses, tokens = zip(*(_loss(joined, some, keep=own) for (own, _), some in alike.items()), strict=True)
        return torch.stack([loss * count for loss, count in zip(losses, tokens, strict=True)]).sum() / sum(tokens)

    def report(step: int, loss: float) -> None:
        if step % 10 == 0:
            say(f"{folder.name} {step}/{settings.steps} loss {loss:.3f}")

    train(parameters, loss_of_step, settings, folder, report)


def _loss(joined: Parts, rows: Sequence[Row], *, keep: bool) -> tuple[Tensor, int]:
    """Mean over reply tokens of how far they are from being said, or from what the backbone says without adapter and
    picture, and their number.
    """
    batch, logits = _replies_to(joined, rows)
    tokens = int((batch.labels != IGNORED).sum())
    if not keep:
        return reply_loss(logits, batch.labels), tokens
    adapters = [module for module in joined.model.modules() if isinstance(module, LoraLayer)]
    for adapter in adapters:
        adapter.enable_adapters(False)
    with torch.no_grad():
        _, reference = _replies_to(joined, [replace(row, image=None) for row in rows])
    for adapter in adapters:
        adapter.enable_adapters(True)
    return distance_to(reference, logits, batch.labels), tokens


def _replies_to(joined: Parts, rows: Sequence[Row]) -> tuple[Batch, Tensor]:
    """The rows as a batch and the logits of their replies."""
    batch = encode(joined.processor, rows)
    kept = batch.labels.shape[1]
    return batch, joined.model(**batch.inputs, logits_to_keep=kept + 1, use_cache=False).logits[:, :-1]


def learnt(joined: Parts) -> dict[str, Tensor]:
    """Adapter, projector and tower in half precision: what the project ships."""
    found: dict[str, Tensor] = {}
    for name, module in joined.model.model.language_model.named_modules():
        if hasattr(module, "lora_A"):
            found[f"adapter.{name}.A"] = module.lora_A["default"].weight
            found[f"adapter.{name}.B"] = module.lora_B["default"].weight
    found |= {f"projector.{k}": v for k, v in joined.model.model.multi_modal_projector.state_dict().items()}
    found |= {f"tower.{k}": v for k, v in joined.model.model.vision_tower.state_dict().items()}
    return {name: tensor.detach().half().contiguous() for name, tensor in found.items()}
