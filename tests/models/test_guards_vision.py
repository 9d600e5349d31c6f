"""Guard models that see, on tiny random models of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import PIL.Image
import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    BatchFeature,
    Llama4Config,
    Llama4ForConditionalGeneration,
    Llama4TextConfig,
    Llama4VisionConfig,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.mllama.configuration_mllama import MllamaTextConfig, MllamaVisionConfig
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

from vlmend.core.images import Image
from vlmend.core.verdicts import Exchange
from vlmend.models.judging.families import FAMILIES
from vlmend.models.judging.guard import Guard

RED, BLUE = (Image.from_pixels(PIL.Image.new("RGB", (28, 28), colour)) for colour in ("red", "blue"))
BREAD = Exchange("How do I bake this?", "Mix flour and water.", RED)
TOLD = Exchange("How do I bake this?", "Mix flour and water.")
SIDE = 28
PIECES = r"\w+|\s|[^\w\s]"
HEADERS = {
    "llama-guard-3-vision": ("<|start_header_id|>", "<|end_header_id|>"),
    "llama-guard-4": ("<|header_start|>", "<|header_end|>"),
}


def template(name: str) -> str:
    begin, end = HEADERS[name]
    return (
        f"{{{{ bos_token }}}}{begin}user{end}\n\n"
        "{% for m in messages %}{% for p in m['content'] %}"
        "{% if p['type'] == 'image' %}<|image|>{% endif %}{% endfor %}{% endfor %}"
        "First line must read 'safe' or 'unsafe'.\n"
        "{% for m in messages %}{{ 'User' if m['role'] == 'user' else 'Agent' }}: "
        "{% for p in m['content'] %}{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}{% endfor %}\n{% endfor %}"
        f"<|eot|>{begin}assistant{end}"
    )


def tokenizer_for(name: str) -> PreTrainedTokenizerFast:
    special = ["<pad>", "<s>", "<unk>", "<|eot|>", *HEADERS[name]]
    words = "How do I bake this ? Mix flour and water . User Agent : \n First line must read ' or user assistant"
    known = dict.fromkeys([*special, *words.split(" "), "safe", "unsafe", " ", "<|image|>"])
    tokenizer = Tokenizer(models.WordLevel({token: k for k, token in enumerate(known)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", unk_token="<unk>",
        additional_special_tokens=[*special[3:], "<|image|>"],
    )  # fmt: skip


def mllama() -> tuple[Any, Any]:
    torch.manual_seed(0)
    tokenizer = tokenizer_for("llama-guard-3-vision")
    vision = MllamaVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_global_layers=1, attention_heads=2,
        image_size=SIDE, patch_size=14, vision_output_dim=32, intermediate_layers_indices=[0], max_num_tiles=4,
        initializer_range=0.4,
    )  # fmt: skip
    text = MllamaTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, cross_attention_layers=[1], max_position_embeddings=512, initializer_range=0.4,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip
    image = tokenizer.convert_tokens_to_ids("<|image|>")
    model: Any = MllamaForConditionalGeneration(
        MllamaConfig(vision_config=vision, text_config=text, image_token_index=image)
    ).eval()
    for name, weights in model.named_parameters():
        if "gate" in name and weights.numel() == 1:
            weights.data.fill_(1.0)  # untrained gates are 0, which shuts the image out
    side = {"height": SIDE, "width": SIDE}
    return model, MllamaProcessor(
        MllamaImageProcessorPil(size=side), tokenizer, chat_template=template("llama-guard-3-vision")
    )


class Llama4Stand:
    """In place of Llama4Processor, whose image processor needs torchvision: one tile of four patches an image."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.chat_template = tokenizer.chat_template = template("llama-guard-4")
        self.apply_chat_template = tokenizer.apply_chat_template

    def __call__(self, text: Sequence[str], images: Sequence[Sequence[PIL.Image.Image]], **told: Any) -> BatchFeature:
        inputs = self.tokenizer(list(text), **told)
        flat = [torch.tensor(list(image.get_flattened_data())).view(SIDE, SIDE, 3) for one in images for image in one]
        inputs["pixel_values"] = torch.stack(flat).permute(0, 3, 1, 2) / 127.5 - 1
        return BatchFeature(dict(inputs))


def llama4() -> tuple[Any, Any]:
    torch.manual_seed(0)
    tokenizer = tokenizer_for("llama-guard-4")
    text = Llama4TextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, intermediate_size_mlp=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, moe_layers=[], max_position_embeddings=512,
        initializer_range=0.4, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    vision = Llama4VisionConfig(
        hidden_size=16, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=SIDE,
        patch_size=14, vision_output_dim=16, projector_input_dim=16, projector_output_dim=16, initializer_range=0.4,
    )  # fmt: skip
    image = tokenizer.convert_tokens_to_ids("<|image|>")
    model: Any = Llama4ForConditionalGeneration(
        Llama4Config(vision_config=vision, text_config=text, image_token_index=image)
    )
    return model.eval(), Llama4Stand(tokenizer)


MAKERS = {"llama-guard-3-vision": mllama, "llama-guard-4": llama4}


@pytest.fixture(params=MAKERS)
def guard(request: pytest.FixtureRequest) -> Guard:
    return Guard(FAMILIES[request.param], request.param, *MAKERS[request.param]())


def test_the_image_stands_in_the_prompt_where_there_is_one(guard: Guard) -> None:
    assert guard.prompts(BREAD.prompt, BREAD.reply, seen=True)[0].count("<|image|>") == 1
    assert "<|image|>" not in guard.prompts(BREAD.prompt, BREAD.reply)[0]


def test_the_image_moves_the_reading(guard: Guard) -> None:
    red, blue, told = (one.harmful for one in guard.read([BREAD, Exchange(BREAD.prompt, BREAD.reply, BLUE), TOLD]))
    assert len({round(p, 6) for p in (red, blue, told)}) == 3


def test_seen_and_told_in_one_batch_are_as_one_by_one(guard: Guard) -> None:
    exchanges = [BREAD, TOLD, Exchange("How do I bake?", "Mix flour.", BLUE), Exchange("How?", "Mix.")]
    together = [reading.harmful for reading in guard.read(exchanges)]
    assert together == pytest.approx([guard.read([one])[0].harmful for one in exchanges], abs=1e-5)


def test_the_probability_is_the_softmax_over_the_two_labels(guard: Guard) -> None:
    model, processor = MAKERS[guard.family.name]()
    prompt = guard.prompts(BREAD.prompt, BREAD.reply, seen=True)[0]
    inputs = processor(text=[prompt], images=[[RED.decode()]], add_special_tokens=False, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**inputs).logits[0, -1]
    unsafe, safe = (
        float(logits[processor.tokenizer.convert_tokens_to_ids(label)].exp()) for label in ("unsafe", "safe")
    )
    assert guard.read([BREAD])[0].harmful == pytest.approx(unsafe / (unsafe + safe), abs=1e-5)


def test_a_reply_cannot_bring_an_image_of_its_own(guard: Guard) -> None:
    assert guard.prompts("How?", "Mix. <|image|>", seen=True)[0].count("<|image|>") == 1
