"""What a model is beside its weights, part by part: whatever can change a reply has a digest here.

Files that are not read do not count, and neither do names: a checkpoint that was loaded twice, or from another
folder, is the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

import transformers

from vlmend.core.provenance import bits_digest

__all__ = [
    "DECODING",
    "REPLIES_ONLY",
    "config_digest",
    "decoding_part",
    "digest_of",
    "identity_of",
    "of_base",
    "processor_identity",
    "tokenizer_digest",
]

DECODING = 1
"""Version of our way to decode: raised with any change after which a model could reply otherwise."""

REPLIES_ONLY = ("decoding",)
"""Parts on which replies depend, but no mend: it fits the same checkpoint on another device or in another dtype."""

BY_THE_WAY = {
    "tokenizer", "chat_template", "image_processor", "processor_class", "transformers_version", "_name_or_path",
    "name_or_path",
}  # fmt: skip
"""Entries of a processor's config that are parts of their own, or say nothing of what it does."""


VOLATILE = {
    "transformers_version", "architectures", "dtype", "torch_dtype", "use_cache", "output_hidden_states",
    "output_attentions", "return_dict", "quantization_config",
}  # fmt: skip
"""Entries of a model's config that say nothing of what it computes, or belong to `decoding`."""


def identity_of(model_digest: str, model: Any, processor: Any) -> dict[str, str]:
    """Digest of each part of a model that answers.

    Args:
        model_digest: Fingerprint of the weights.
        model, processor: The transformers objects.
    """
    own = model.generation_config
    return processor_identity(processor) | {
        "weights": model_digest,
        "config": config_digest(model.config),
        "chat_template": digest_of(_template(processor)),
        "generation": digest_of({"end": own.eos_token_id, "pad": own.pad_token_id}),
        "decoding": decoding_part(model),
    }


def processor_identity(processor: Any) -> dict[str, str]:
    """Processor and tokenizer: what makes the inputs of any model."""
    images = getattr(processor, "image_processor", None)
    return {
        "processor": digest_of([_config(processor), _config(images)]),
        "tokenizer": tokenizer_digest(processor.tokenizer),
    }


def config_digest(config: Any) -> str:
    """The settings of the model's class: which layer's features are read, frequencies, epsilons, activations."""
    return digest_of(_lasting(config if isinstance(config, Mapping) else config.to_dict()))


def decoding_part(model: Any) -> str:
    """How replies are computed: our version, that of transformers, dtype and kind of device.

    Bits of weights that their fingerprint rounds off count here: replies depend on them, and no mend does. Whether our
    own loop may be used is found by a trial, whose outcome these decide.
    """
    quantised = str(getattr(getattr(model, "config", None), "quantization_config", None) is not None)
    first = next(weight for weight in model.parameters() if weight.is_floating_point())
    dtype, device = str(first.dtype), first.device.type
    return digest_of([DECODING, transformers.__version__, dtype, device, quantised, bits_digest(model)])


def of_base(identity: Mapping[str, str]) -> dict[str, str]:
    """The parts of a model that a mend of it must find again."""
    return {part: digest for part, digest in identity.items() if part not in REPLIES_ONLY}


def _lasting(value: Any) -> Any:
    """A config without what says nothing of the model, or belongs to another part, at every depth."""
    if isinstance(value, Mapping):
        held = cast("Mapping[str, Any]", value)
        return {k: _lasting(one) for k, one in held.items() if k not in VOLATILE and not str(k).startswith("_")}
    return value


def _config(part: Any) -> Mapping[str, Any]:
    """The settings of a processor or of its image processor."""
    if part is None:
        return {}
    settings: Mapping[str, Any] = part.to_dict()
    return {key: value for key, value in settings.items() if key not in BY_THE_WAY}


def _template(processor: Any) -> Any:
    return getattr(processor, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None)


def tokenizer_digest(tokenizer: Any) -> str:
    """Vocabulary, rules, special and added tokens, longest text; what calls change (padding, cutting) is left out."""
    added = {str(place): repr(token) for place, token in tokenizer.added_tokens_decoder.items()}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        rules: list[str] = [json.dumps(sorted(tokenizer.get_vocab().items()))]
    else:
        parts = (backend.model, backend.normalizer, backend.pre_tokenizer, backend.post_processor, backend.decoder)
        rules = ["" if part is None else part.__getstate__().decode() for part in parts]
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    tidied = bool(getattr(tokenizer, "clean_up_tokenization_spaces", False))
    return digest_of([type(tokenizer).__name__, rules, added, special, tokenizer.model_max_length, tidied])


def digest_of(content: Any) -> str:
    """SHA-256 of anything that JSON can hold, or that tells what it is in words."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
