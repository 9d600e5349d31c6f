"""One of three parties that score embeddings together, by mpyc (Shamir sharing): the one place where it is imported.

    python -m vlmend.export.private.parties -P HOST:PORT -P HOST:PORT -P HOST:PORT -I 0|1|2

mpyc reads these arguments when it is imported, so this is a program of its own. Party 0 has the embeddings and gets the
scores, party 1 has the head, party 2 helps: any two of them together could read everything, one alone reads nothing.
What a party is to do comes as JSON on its standard input, what it found leaves as JSON on its standard output. Nothing
that comes is unpickled: mpyc sends arrays as pickles unless platforms are mixed, so they are (`PLAIN`).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["PLAIN", "score"]

PLAIN = "--mix32-64bit"
"""mpyc's argument under which arrays are sent as plain bytes; all parties give it."""

ASKER, HOLDER = 0, 1
"""Who has the embeddings, and who the head."""

BITS, POINT = 64, 32
"""Of a shared number, and of these behind the point."""


async def score(mpc: Any, told: Any) -> dict[str, Any]:
    """The part of this party.

    Args:
        mpc: mpyc's runtime.
        told: count, classes and width, known to all; embeddings of party 0; head, the folder of party 1.
    """
    import numpy

    number = mpc.SecFxp(BITS, POINT)
    count, classes, width = told["count"], told["classes"], told["width"]
    weight, bias = numpy.zeros((classes, width)), numpy.zeros(classes)
    if mpc.pid == HOLDER:
        from vlmend.export.private.head import read_head  # the others are up sooner

        head = read_head(Path(told["head"]))
        weight, bias = head.weight.double().numpy(), head.bias.double().numpy()
    embeddings = numpy.array(told["embeddings"]) if mpc.pid == ASKER else numpy.zeros((count, width))

    def shared(values: Any, sender: int) -> Any:
        return mpc.input(number.array(values, integral=False), senders=sender)  # else zeros count as whole numbers

    await mpc.start()
    its_weight, its_bias = shared(weight, HOLDER), shared(bias, HOLDER)
    await mpc.barrier()
    once = _sent(mpc)
    scores: list[list[float]] = []
    seconds: list[float] = []
    for embedding in embeddings:
        begun = time.perf_counter()
        found = await mpc.output(its_weight @ shared(embedding, ASKER) + its_bias, receivers=ASKER)
        seconds.append(time.perf_counter() - begun)
        if mpc.pid == ASKER:
            scores.append([float(one) for one in found])
    await mpc.barrier()
    sent = _sent(mpc)
    await mpc.shutdown()
    return {"scores": scores, "seconds": seconds, "once": once, "sent": sent - once}


class PlainWords:
    """What mpyc packs the few messages with that are no arrays: a party that lies cannot make another run code."""

    @staticmethod
    def dumps(value: Any) -> bytes:
        return json.dumps(value).encode()

    @staticmethod
    def loads(content: bytes) -> Any:
        return json.loads(content)


def _sent(mpc: Any) -> int:
    return sum(peer.protocol.nbytes_sent for peer in mpc.parties if peer.pid != mpc.pid)


def _main() -> None:
    import mpyc.runtime  # pyright: ignore[reportMissingTypeStubs]

    library: Any = mpyc.runtime
    library.pickle = PlainWords
    runtime = library.mpc
    print(json.dumps(runtime.run(score(runtime, json.load(sys.stdin)))), flush=True)


if __name__ == "__main__":
    _main()
