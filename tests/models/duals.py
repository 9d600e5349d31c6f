"""Tiny random dual encoders of real classes with real processors, made from configs and offline.

The plain SigLIP class has a Gemma-kind tokenizer here, as SigLIP 2 checkpoints of fixed resolution have; SigLIP's
own one needs sentencepiece. Towers are two blocks deep and 32 wide.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf

LETTERS = [chr(k) for k in range(33, 127) if not chr(k).isupper()]
TOWER: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
VIEW: dict[str, Any] = {"image_size": 16, "patch_size": 8}
SQUARE = {"height": 16, "width": 16}
CLIP_WORDS = ["<|startoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|endoftext|>"]
BERT_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
GEMMA_WORDS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *LETTERS]
UNIGRAM = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -3.0), *((x, -3.0) for x in LETTERS)]


def clip_tokenizer() -> Any:
    return hf.CLIPTokenizer(_numbered(CLIP_WORDS), [], model_max_length=24)


def clip_like(prefix: str, tokens: int = 24) -> tuple[Any, Any]:
    """CLIP, CLIPSeg, MetaCLIP 2: one shape of config."""
    text = {**TOWER, "vocab_size": len(CLIP_WORDS), "max_position_embeddings": tokens, "pad_token_id": 1,
            "bos_token_id": 0, "eos_token_id": len(CLIP_WORDS) - 1, "projection_dim": 16}  # fmt: skip
    vision = {**TOWER, **VIEW, "projection_dim": 16}
    config = getattr(hf, f"{prefix}Config")(text_config=text, vision_config=vision, projection_dim=16)
    images = hf.CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=SQUARE)
    return getattr(hf, f"{prefix}Model")(config), hf.CLIPProcessor(images, clip_tokenizer())


def clip() -> tuple[Any, Any]:
    return clip_like("CLIP")


def clipseg() -> tuple[Any, Any]:
    return clip_like("CLIPSeg")


def metaclip2() -> tuple[Any, Any]:
    return clip_like("MetaClip2")


def gemma_tokenizer() -> Any:
    return hf.Siglip2Tokenizer(_numbered(GEMMA_WORDS), [], model_max_length=64)


def siglip_text() -> dict[str, Any]:
    return {**TOWER, "vocab_size": len(GEMMA_WORDS), "max_position_embeddings": 64, "projection_size": 32,
            "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}  # fmt: skip


def siglip() -> tuple[Any, Any]:
    text = siglip_text()
    model = hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config={**TOWER, **VIEW}))
    return model, hf.SiglipProcessor(hf.SiglipImageProcessorPil(size=SQUARE), gemma_tokenizer())


def siglip2_naflex() -> tuple[Any, Any]:
    """Two by two patches of 8 pixels in training, up to six here."""
    text = siglip_text()
    vision = {**TOWER, "patch_size": 8, "num_patches": 4}
    model = hf.Siglip2Model(hf.Siglip2Config(text_config=text, vision_config=vision))
    images = hf.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=6)
    processor = hf.Siglip2Processor(images, gemma_tokenizer())
    processor.images_kwargs = {"patch_size": 8, "max_num_patches": 6}
    return model, processor


def bert_tokenizer() -> Any:
    return hf.BertTokenizer(_numbered(BERT_WORDS), model_max_length=512)


def bert(tokens: int) -> dict[str, Any]:
    return {**TOWER, "vocab_size": len(BERT_WORDS), "max_position_embeddings": tokens, "pad_token_id": 0}


def align() -> tuple[Any, Any]:
    vision = {
        "image_size": 32, "width_coefficient": 1.0, "depth_coefficient": 1.0, "depth_divisor": 8,
        "kernel_sizes": [3, 3], "in_channels": [32, 16], "out_channels": [16, 16], "depthwise_padding": [],
        "strides": [1, 2], "num_block_repeats": [1, 1], "expand_ratios": [1, 2], "hidden_dim": 16,
    }  # fmt: skip
    config = hf.AlignConfig(text_config=bert(80), vision_config=vision, projection_dim=16)
    size = {"height": 32, "width": 32}
    images = hf.EfficientNetImageProcessorPil(
        size=size, do_normalize=False, include_top=False, rescale_factor=1 / 127.5, rescale_offset=True
    )
    return hf.AlignModel(config), hf.AlignProcessor(images, bert_tokenizer())


def blip_itm() -> tuple[Any, Any]:
    text = {**bert(40), "bos_token_id": 2, "sep_token_id": 3, "encoder_hidden_size": 32}
    config = hf.BlipConfig(text_config=text, vision_config={**TOWER, **VIEW}, image_text_hidden_size=16)
    images = hf.BlipImageProcessorPil(size=SQUARE)
    return hf.BlipForImageTextRetrieval(config), hf.BlipProcessor(images, bert_tokenizer())


def chinese_clip() -> tuple[Any, Any]:
    config = hf.ChineseCLIPConfig(text_config=bert(40), vision_config={**TOWER, **VIEW}, projection_dim=16)
    images = hf.ChineseCLIPImageProcessorPil(size=SQUARE, crop_size=SQUARE)
    return hf.ChineseCLIPModel(config), hf.ChineseCLIPProcessor(images, bert_tokenizer())


def altclip() -> tuple[Any, Any]:
    """Positions begin after padding, so that 26 of them hold 24 tokens."""
    text = {**TOWER, "vocab_size": len(UNIGRAM), "max_position_embeddings": 26, "project_dim": 16, "pad_token_id": 1}
    config = hf.AltCLIPConfig(text_config=text, vision_config={**TOWER, **VIEW}, projection_dim=16)
    images = hf.CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=SQUARE)
    return hf.AltCLIPModel(config), hf.AltCLIPProcessor(images, hf.XLMRobertaTokenizer(vocab=UNIGRAM))


def built(name: str, seed: int = 0) -> tuple[Any, Any]:
    """The model of a family with weights that make a difference, and its processor."""
    torch.manual_seed(seed)
    model, processor = FAMILIES[name]()
    with torch.no_grad():
        for path, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.add_(torch.randn_like(weight) * 0.1)
            if path == "logit_bias":
                weight.fill_(-3.0)
            if path == "logit_scale":
                weight.fill_(2.0)
            if path == "temperature":
                weight.fill_(0.25)
        for part in model.modules():
            if isinstance(part, torch.nn.Embedding) and part.padding_idx is not None:
                part.weight[part.padding_idx] = 0  # Chinese-CLIP's class does the same at every load
    return model.eval(), processor


FAMILIES = {
    "clip": clip, "siglip": siglip, "siglip2_naflex": siglip2_naflex, "align": align, "blip_itm": blip_itm,
    "altclip": altclip, "chinese_clip": chinese_clip, "clipseg": clipseg, "metaclip2": metaclip2,
}  # fmt: skip


def _numbered(words: list[str]) -> dict[str, int]:
    return {word: k for k, word in enumerate(words)}
