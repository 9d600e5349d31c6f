"""The verb that answers others: serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from vlmend.cli.options import Json, LoadOptions, Model, app, opened_chat, with_loading
from vlmend.cli.progress import progress_bars
from vlmend.printing import out_console, print_json

__all__ = ["serve"]

Mends = Annotated[
    list[str] | None,
    typer.Option(help="Folder of a mend, served as base+FOLDER, or NAME=DIR as base+NAME; may be given again."),
]
Host = Annotated[str, typer.Option(help="Other than this machine's own only with --api-key-file.")]
Keys = Annotated[
    Path | None, typer.Option("--api-key-file", help="Keys, one a line, in a file that only you can read.")
]
RemoteImages = Annotated[
    bool, typer.Option("--remote-images", help="Fetch pictures from public http(s) addresses, too.")
]
LogWords = Annotated[bool, typer.Option("--log-words", help="Write requests and replies into the log.")]
Queue = Annotated[int, typer.Option(min=1, help="Requests waiting and under way; one more gets status 429.")]
Ray = Annotated[
    str, typer.Option(help="Replicas on a Ray cluster: local, auto, or its address (extra ray; docs/guides/scale.md).")
]
Replicas = Annotated[
    str | None,
    typer.Option(help="With --ray: N, or MIN-MAX as requests come; one a GPU unless given, or one a host."),
]


@app.command()
@with_loading
def serve(
    model: Model,
    mend: Mends = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes any free one.")] = 8000,
    api_key_file: Keys = None,
    no_base: Annotated[bool, typer.Option("--no-base", help="Serve the mended views only.")] = False,
    remote_images: RemoteImages = False,
    log_words: LogWords = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest reply that may be asked for.")] = 1024,
    queue: Queue = 64,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for one whole answer.")] = 300.0,
    ray: Ray = "",
    replicas: Replicas = None,
    loading: LoadOptions = LoadOptions(),
    as_json: Json = False,
) -> None:
    """Answer OpenAI's clients: /v1/chat/completions, with and without mends, picked by the model's name."""
    from vlmend.serving.limits import Limits
    from vlmend.serving.settings import Settings, check_replicas, named_mends, read_keys

    with progress_bars(model) as report:
        from vlmend.audit.preflight import check_names_of
        from vlmend.core.mend import Mend

        folders = named_mends(mend or [])
        limits = Limits(new_tokens=max_new_tokens, held=queue, timeout_s=timeout)
        keys = () if api_key_file is None else read_keys(api_key_file)
        settings = Settings(host, port, keys, limits, not no_base, remote_images, log_words)
        checks = (settings.check, lambda: check_replicas(ray, replicas))
        check_names_of(model, [], *checks, mends=[*folders.values()], options=loading)
        view = None if ray else opened_chat(model, loading, "serve")
        report("load", 1, 1)
    from vlmend.serving import run

    mends = {name: Mend.load(folder) for name, folder in folders.items()}
    if view is not None:
        run.serve(view, mends, settings, _told(as_json))
        return
    opening = run.Opening(model, mends, loading, not no_base, str(Path.cwd()))
    run.serve_on_ray(opening, settings, check_replicas(ray, replicas), ray, _told(as_json))


def _told(as_json: bool) -> Callable[[str, Sequence[str]], None]:
    """Says where the server listens and what can be asked for."""

    def ready(address: str, names: Sequence[str]) -> None:
        if as_json:
            print_json("serve", {"address": address, "models": list(names)})
            return
        told = f"{address}   models: {', '.join(names)}   stop with Ctrl-C"
        out_console.print(told, highlight=False, markup=False, soft_wrap=True)

    return ready
