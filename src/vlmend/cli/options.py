"""What verbs share: the app, options, and the loading of models."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from vlmend.errors import NeedsAccess, UsageError
from vlmend.models.loading.options import LoadOptions

if TYPE_CHECKING:
    from vlmend.core.targets import Kind
    from vlmend.models.vlm import VLM

__all__ = [
    "ApiBase", "Gates", "JUnit", "Json", "Judges", "Limit", "LoadOptions", "Markdown", "Model", "ModelOrOption",
    "OldModel", "app", "names_of", "one_model", "opened", "opened_chat", "with_loading",
]  # fmt: skip

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip

LOADED = "Take a model that vlmend loads itself: a hub name, a folder, or an embedded one."


def names_of(group: str, *more: str) -> Callable[[str], list[str]]:
    """Completes in a shell the names of a group of plug-ins; in a list with commas its last part."""

    def complete(incomplete: str) -> list[str]:
        from vlmend import registry

        before, comma, last = incomplete.rpartition(",")
        names = [*more, *(one.name for one in registry.plugins(group))]
        return [before + comma + name for name in names if name.startswith(last)]

    return complete


Model = Annotated[
    str,
    typer.Argument(
        help="A hub name, a folder, or an embedded model such as phantom.", autocompletion=names_of("models")
    ),
]
ModelOrOption = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL", help="A hub name, a folder, or an embedded model such as phantom.",
        autocompletion=names_of("models"),
    ),
]  # fmt: skip
OldModel = Annotated[str | None, typer.Option("--model", help="The same, as an option.")]
ApiBase = Annotated[
    str | None, typer.Option("--api-base", help="Address of an API model, api:NAME; OPENAI_BASE_URL unless given.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Judges = Annotated[
    list[str] | None,
    typer.Option(
        "--judge",
        help="A judge of the replies: harmful, refusal, rules unless given. May be given again.",
        autocompletion=names_of("judges"),
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1, help="At most so many of each kind (requests, texts, pictures of a group): the first of your data, some "
        "of each topic of the built-in data. All unless given.",
    ),
]  # fmt: skip
Gates = Annotated[
    list[str] | None, typer.Option("--gate", help='Bound, as "safety.unsafe_rate[original].high <= 0.10".')
]
JUnit = Annotated[Path | None, typer.Option(help="Write the gates as JUnit XML.")]
Markdown = Annotated[
    Path | None, typer.Option(help="Append gates and scorecard as Markdown, e.g. $GITHUB_STEP_SUMMARY.")
]


def with_loading(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the loading options in the place of its parameter `loading: LoadOptions`.

    The options are declared once, as the parameters of `_loading`. One whose name the verb has itself, with a
    meaning of its own, is left out.
    """
    own = inspect.signature(verb).parameters
    options = {k: option for k, option in inspect.signature(_loading, eval_str=True).parameters.items() if k not in own}
    types = get_type_hints(verb, include_extras=True)

    @wraps(verb)
    def spliced(**given: Any) -> None:
        loading = _loading(**{name: given.pop(name) for name in options})
        verb(**given, loading=loading)

    parameters: list[inspect.Parameter] = []
    for name, parameter in own.items():
        parameters += options.values() if name == "loading" else [parameter.replace(annotation=types[name])]
    keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    spliced.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]
    spliced.__annotations__ = {parameter.name: parameter.annotation for parameter in keyword}
    return spliced


def one_model(argument: str | None, option: str | None) -> str:
    """The model that a verb was given, in its place or as `--model`.

    Raises:
        UsageError: None was given, or two.
    """
    given = [name for name in (argument, option) if name is not None]
    if len(given) != 1:
        what = f"Two models were given ({' and '.join(given)})." if given else "No model was given."
        raise UsageError(what, "Write the model once, after the verb and what it names.")
    return given[0]


def opened_chat(model: str, loading: LoadOptions, verb: str) -> VLM:
    """A model that answers, for verbs that look inside it.

    Raises:
        UsageError: It is of another kind.
        NeedsAccess: It is an API model.
    """
    return opened(model, loading, verb, "chat")


def opened(model: str, loading: LoadOptions, verb: str, kind: Kind) -> Any:
    """A model of one kind, for what looks inside it.

    Raises:
        UsageError: It is of another kind; told before a weight is read.
        NeedsAccess: It is an API model.
    """
    from vlmend.core.targets import check_access, check_kind
    from vlmend.face import open_target

    if model.startswith("api:"):
        raise NeedsAccess(f"{verb} needs the weights of {model}, of which only replies can be had.", LOADED)
    target = open_target(model, options=loading, check=lambda found: check_kind(found, model, verb, kind))
    check_access(target, verb, kind, "weights")
    return target


def _loading(
    device: Annotated[str, typer.Option(help="cuda, cpu, ...; the GPU where there is one.")] = "",
    device_map: Annotated[
        Literal["auto"] | None, typer.Option(help="auto spreads the model over all GPUs (accelerate).")
    ] = None,
    dtype: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"],
        typer.Option(help="Of the weights; auto is float32 on the CPU, the checkpoint's own on a GPU."),
    ] = "auto",
    quantize: Annotated[
        Literal["8bit", "4bit", "int8-torchao"] | None,
        typer.Option(help="8bit, 4bit: bitsandbytes; int8-torchao: weights only, by torchao."),
    ] = None,
    attention: Annotated[
        Literal["auto", "sdpa", "eager", "flash_attention_2"], typer.Option(help="How attention is computed.")
    ] = "auto",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the Python code that the checkpoint brings along.")
    ] = False,
    revision: Annotated[str, typer.Option(help="Branch, tag or commit on the hub; a folder ignores it.")] = "main",
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read .bin files, which can hold code, where safetensors lack.")
    ] = False,
    blocks: Annotated[str, typer.Option(help="Path of the decoder blocks, where they cannot be told.")] = "",
    send_outside: Annotated[
        bool, typer.Option("--send-outside", help="Send pictures outside of the data's folder to an API, too.")
    ] = False,
) -> LoadOptions:
    return LoadOptions(
        device,
        dtype,
        device_map or "",
        quantize or "",
        attention,
        trust_remote_code,
        revision,
        allow_pickle,
        blocks,
        send_outside,
    )
