"""What can go wrong with a checkpoint, each as one message with cause and way out.

`explained` turns what the libraries raise into `ModelProblem`; the checks below it find what no library tells:
a model of another kind, weights that are missing or no numbers.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import errors as hub
from jinja2 import TemplateError
from safetensors import SafetensorError, safe_open
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING,
    PreTrainedConfig,
)

from vlmend.errors import FAILURES, ModelProblem, VlmendError, cause_of
from vlmend.models.anatomy.find import Anatomy
from vlmend.models.loading.places import ORIGINAL_LLAVA
from vlmend.models.reading.templates import written

__all__ = [
    "another_kind",
    "check_complete",
    "check_numbers",
    "check_template",
    "check_used",
    "explained",
    "processor_explained",
    "said_unused",
]

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
COPY = "Copy the tokenizer and processor files of the original checkpoint into the folder."
PROBE = "What is in this picture?"
PICKLE_RISK = "such files can hold code that runs while they are read, so do it only for a source you trust"
CODE_RISK = "it runs with your rights, so read it first, and pin it with --revision COMMIT"


@contextmanager
def explained(model: str | Path, revision: str = "main", what: str = "an image-text-to-text model") -> Generator[None]:
    """Turn what goes wrong inside the block into one message with cause and way out.

    Args:
        model: What is loaded.
        revision: And which revision of it.
        what: As what, for the message.

    Raises:
        ModelProblem: For every error of the libraries.
    """
    try:
        yield
    except VlmendError:
        raise
    except Exception as problem:  # what a config or weights of other kinds make the libraries raise is not told
        cause, way_out = _told(str(model), revision, problem)
        raise ModelProblem(f"{model} cannot be loaded as {what}: {cause}", way_out) from problem


@contextmanager
def processor_explained(model: str | Path, revision: str = "main") -> Generator[None]:
    """The same for the processor: what fails there is mostly a file that was not copied."""
    try:
        yield
    except VlmendError:
        raise
    except Exception as problem:
        missing = _missing_processor_files(Path(model))
        cause, way_out = (missing, COPY) if missing else _told(str(model), revision, problem)
        raise ModelProblem(f"The processor of {model} cannot be loaded: {cause}", way_out) from problem


def another_kind(model: str | Path, config: PreTrainedConfig) -> ModelProblem:
    """Why a checkpoint that transformers knows is no model that answers requests with images."""
    kind = type(config)
    if config.is_encoder_decoder or config.get_text_config(decoder=True).is_encoder_decoder:
        what, way_out = "it is an encoder-decoder", "vlmend edits decoder-only models; use one of these."
    elif kind in MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING:
        what, way_out = (
            "it is a dual encoder, which ranks images and texts but writes nothing",
            "Load it with vlmend.models.loading.dual.load_dual.",
        )
    elif kind in MODEL_FOR_CAUSAL_LM_MAPPING:
        what, way_out = "it reads text only", "Use a checkpoint that also reads images (docs/models.md lists families)."
    else:
        what, way_out = "it does not write text about images", "docs/models.md lists the families that do."
    return ModelProblem(
        f"{model} cannot be loaded as an image-text-to-text model: {what} (model type {config.model_type}).", way_out
    )


def check_template(model: str | Path, processor: Any) -> None:
    """Refuse a chat template that cannot write a request with a picture.

    Raises:
        ModelProblem: There is none, it fails, or it takes messages for plain text: it would leave the words out, or
            write the message's parts as Python does.
    """
    if not processor.chat_template:
        raise ModelProblem(
            f"{model} has no chat template, so requests cannot be put to it.",
            "Use an instruction-tuned checkpoint, or add a chat_template.jinja to its folder.",
        )
    parts = [{"type": "image"}, {"type": "text", "text": PROBE}]
    try:
        text = written(processor, [{"role": "user", "content": parts}], add_generation_prompt=True)
        wrong = "" if PROBE in text and "'type'" not in text else "it takes a message for plain text"
    except (TemplateError, MemoryError, *FAILURES) as problem:
        wrong = f"it fails with {type(problem).__name__}: {cause_of(problem)}"
    if wrong:
        raise ModelProblem(
            f"The chat template of {model} cannot write a request with a picture ({wrong}).",
            "Use the template of a checkpoint that reads pictures: message['content'] is a list of parts, each of the "
            "type image or text. It stands in chat_template.jinja.",
        )


def check_complete(model: str | Path, missing: Sequence[str], anatomy: Anatomy) -> None:
    """Refuse a checkpoint that lacks weights, since random ones would stand in for them.

    A head of the vision tower outside its layers is let pass: chat never uses it, and some checkpoints leave it out.

    Raises:
        ModelProblem: How many are missing, and the first by name.
    """
    tower = f"{anatomy.vision_path}."
    needed = [
        key for key in missing if not (key.startswith(tower) and not any(part.isdigit() for part in key.split(".")))
    ]
    if needed:
        raise ModelProblem(
            f"{model} lacks {len(needed)} of its weights, first {min(needed)}; they would be random.",
            "Fetch the checkpoint again, or load the class that it was saved from.",
        )


def check_used(model: str | Path, unused: Sequence[str], anatomy: Anatomy) -> None:
    """Refuse a checkpoint that holds decoder blocks which its config does not count: another model would answer.

    Raises:
        ModelProblem: How many weights are left over, and the first by name.
    """
    numbered = re.compile(rf"{re.escape(anatomy.blocks_path)}\.(\d+)\.")
    left = [key for key in unused if (found := numbered.match(key)) and int(found[1]) >= len(anatomy.blocks)]
    if left:
        raise ModelProblem(
            f"{model} holds {len(left)} weights of decoder blocks that its config.json does not have, first "
            f"{min(left)}; it counts {len(anatomy.blocks)} blocks.",
            "Put the config.json back that the weights were saved with.",
        )


def said_unused(model: str | Path, unused: Sequence[str]) -> str:
    """Log that weights in the files have no place in the model, and give the line."""
    line = f"{len(unused)} weights in its files have no place in the model, first {min(unused)}"
    logging.getLogger(__name__).warning("%s: %s", model, line)
    return line


def check_numbers(model: str | Path, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Refuse weights that are NaN or infinite; every weight is read once, at memory speed.

    Raises:
        ModelProblem: How many tensors have some, and the first by name.
    """
    broken = [name for name, tensor in tensors if _read_here(tensor) and not _finite(tensor)]
    if broken:
        raise ModelProblem(
            f"{model} has NaN or infinite numbers in {len(broken)} of its weights, first in {broken[0]}.",
            "Its training or conversion went wrong, or float16 is too narrow for it: try --dtype bfloat16 or float32, "
            "or fetch the checkpoint again.",
        )


def _told(model: str, revision: str, problem: Exception) -> tuple[str, str]:
    """Cause and way out, from the chain of errors that a library raised."""
    chain = list(_chain(problem))
    for link in chain:
        told = _told_by_hub(model, revision, link)
        if told:
            return told
    text = str(problem)
    if "trust_remote_code" in text:
        return (
            "it comes with its own Python code, which vlmend does not run unasked.",
            f"If you trust its authors: --trust-remote-code (load: LoadOptions(trust_remote_code=True)); {CODE_RISK}.",
        )
    if any(isinstance(link, SafetensorError) for link in chain):
        return (
            f"{_broken_file(Path(model))} is no whole safetensors file ({_first_line(problem)}).",
            "It was cut short or is a Git LFS pointer; fetch it again (hf download NAME, or git lfs pull).",
        )
    if re.search(r"no file named|not appear to have a file named|not appear to have files named", text):
        return _no_weights(model, problem)
    return _told_by_words(model, problem, chain)


def _told_by_hub(model: str, revision: str, link: BaseException) -> tuple[str, str] | None:
    match link:
        case hub.GatedRepoError():
            return (
                "it is gated, and access was not granted to you.",
                f"Accept its terms at https://huggingface.co/{model} and log in: hf auth login.",
            )
        case hub.RevisionNotFoundError():
            return f"it has no revision {revision!r}.", "Pass a branch, tag or commit of it with --revision."
        case hub.RepositoryNotFoundError():
            return (
                "the hub has no such model, or it is private.",
                "Check the spelling; for a private model log in: hf auth login.",
            )
        case hub.HFValidationError():
            return (
                "there is no such folder, and it is no hub name.",
                "Check the path; a hub name is written owner/name, an embedded model as in vlmend list models.",
            )
        case hub.LocalEntryNotFoundError() | hub.OfflineModeIsEnabled():
            return (
                "it is no folder here, it is not in the cache, and the hub cannot be reached.",
                "Check the name (a hub name, a folder, or `phantom`) and the network, or fetch it elsewhere and pass "
                "its folder. HF_HUB_OFFLINE=1 shuts the network out.",
            )
        case _:
            return None


def _told_by_words(model: str, problem: Exception, chain: Sequence[BaseException]) -> tuple[str, str]:
    """Where the class of an error says too little."""
    text = str(problem)
    if any("torchvision" in str(link).lower() for link in chain):
        return "it is built on torchvision, which is not installed.", _torchvision_line()
    if "has no attribute" in text:
        return f"its parts do not fit together: {_first_line(problem)}.", COPY
    if any(isinstance(link, JSONDecodeError) for link in chain):
        return f"a file of it is no JSON: {_first_line(problem)}", "Fetch that file again."
    if re.search(r"model type `llava_(llama|mistral|mixtral|mpt|qwen|gemma|phi)", text):
        return ORIGINAL_LLAVA
    if "does not recognize this architecture" in text:
        return _first_line(problem), "It may be newer than your transformers: pip install -U transformers."
    if "ignore_mismatched_sizes" in text:
        return (
            "its weights have other shapes than its config.json says.",
            "Config and weights are of different models; fetch both from one place.",
        )
    if "model_type" in text:
        return "it has no config.json that names its model type.", "Pass a hub name or a folder that holds one."
    if isinstance(problem, ImportError):
        other = ", or pass the checkpoint that it was quantised from" if "quantiz" in text.lower() else ""
        return _first_line(problem), f"Install what the message names{other}."
    if isinstance(problem, MemoryError | torch.OutOfMemoryError):
        return "memory ran out.", "Use --dtype bfloat16, --quantize 4bit or a smaller model."
    if isinstance(problem, TypeError | LookupError | ArithmeticError):
        return (
            f"a value in its files is not what it should be ({type(problem).__name__}: {_first_line(problem)}).",
            "Fetch its config, processor and tokenizer files again.",
        )
    if "attention implementation" in text or "attn_implementation" in text:
        return _first_line(problem), "Pass --attention eager, which every model has."
    return (
        _first_line(problem),
        "Check the name (a hub name, a folder, or `phantom`), the network, and for a gated model that you have "
        "accepted its terms and are logged in.",
    )


def _torchvision_line() -> str:
    """What to type for the torchvision that was made for the installed torch: 0.(N + 15) for torch 2.N."""
    fits = f"0.{int(torch.__version__.split('.')[1]) + 15}.*"
    return (
        f'Run: pip install "torchvision=={fits}", from where your torch {torch.__version__} came from: one of another '
        "build (CPU, CUDA) breaks the loading of every model, and pip uninstall torchvision is then the way back."
    )


def _no_weights(model: str, problem: Exception) -> tuple[str, str]:
    folder = Path(model)
    pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern)) if folder.is_dir() else []
    if pickles:
        return (
            f"it has no safetensors, only {pickles[0]}.",
            f"--allow-pickle (load: LoadOptions(allow_pickle=True)) reads it; {PICKLE_RISK}.",
        )
    if folder.is_dir():
        return f"it has no weights: {_first_line(problem)}", "Fetch its model.safetensors."
    return (
        f"it has no safetensors: {_first_line(problem)}",
        f"If it has .bin files, --allow-pickle reads them; {PICKLE_RISK}.",
    )


def _broken_file(folder: Path) -> str:
    """The first safetensors file that cannot be opened."""
    for file in sorted(folder.glob("*.safetensors")) if folder.is_dir() else []:
        try:
            with safe_open(file, "pt"):
                pass
        except SafetensorError:
            return file.name
    return "a file of its weights"


def _missing_processor_files(folder: Path) -> str:
    """Which part has no file at all, as a sentence; empty where none is missing or this is no folder."""
    wanted = {
        "image processor (preprocessor_config.json or processor_config.json)": ("*processor_config.json",),
        "tokenizer (tokenizer.json, tokenizer.model or vocab files)": ("tokenizer.json", "*.model", "vocab.*"),
    }
    if not folder.is_dir():
        return ""
    missing = [part for part, patterns in wanted.items() if not any(any(folder.glob(p)) for p in patterns)]
    return f"the folder has no {' and no '.join(missing)}." if missing else ""


def _chain(problem: BaseException) -> Generator[BaseException]:
    link: BaseException | None = problem
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _first_line(problem: BaseException) -> str:
    return next(iter(str(problem).strip().splitlines()), repr(problem))


def _read_here(tensor: torch.Tensor) -> bool:
    """Plain floating-point numbers; quantised tensors have integers, and no meaning bit by bit."""
    return type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.dtype in DTYPES and tensor.numel() > 0


def _finite(tensor: torch.Tensor) -> bool:
    """`aminmax` hands NaN on, makes no copy, and does not overflow as a sum of float16 would."""
    low, high = torch.aminmax(tensor.detach())
    return bool(torch.isfinite(low) & torch.isfinite(high))


DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""What `aminmax` reads."""
