"""Reads the probability of harm off a loaded guard model, in batches padded on the left.

What each family is asked and which labels decide is in `vlmend.models.judging.families`; loading is in
`vlmend.models.loading.guard`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vlmend.core.provenance import fingerprint
from vlmend.core.verdicts import Exchange
from vlmend.errors import JudgeProblem, ModelProblem
from vlmend.models.judging.families import HEADER_ENDS, Family
from vlmend.models.reading.templates import written

__all__ = ["GAP", "Guard", "Reading"]

BATCH = 8
GAP = "\n[...]\n"
"""Stands for what was cut out of the middle of a long request or reply."""

SPARE = 16
"""Tokens kept free for a cut text that comes out a little longer when it is tokenised again."""


@dataclass(frozen=True)
class Reading:
    """What a guard says of one exchange.

    Attributes:
        harmful: Probability of the harmful labels among all labels, 0 to 1; NaN where the logits are.
        guideline: The policy with the highest probability, where the family asks about several.
        cut: Whether the middle of the request or the reply was left out to fit.
    """

    harmful: float
    guideline: str
    cut: bool


@dataclass(frozen=True)
class _Row:
    """One prompt: the exchange it is about, and its tokens up to where the labels part."""

    place: int
    guideline: str
    prompt: str
    start: list[int]
    harmful: list[list[int]]
    harmless: list[list[int]]
    cut: bool


@dataclass(frozen=True)
class _Form:
    """How a template wants its words: as parts of a message or plain, and with a header opened for the verdict."""

    parts: bool
    opened: bool


FORMS = (_Form(False, False), _Form(True, False), _Form(False, True), _Form(True, True))


class Guard:
    """A loaded guard model.

    Args:
        family: What it is asked.
        name: What errors call it.
        model: The transformers model.
        processor: Its processor, or the tokenizer of a family that reads text only.
    """

    def __init__(self, family: Family, name: str, model: Any, processor: Any) -> None:
        self.family = family
        self.name = name
        self._model = model.eval()
        self._processor = processor
        self._tokenizer: Any = processor.tokenizer if family.sees else processor
        self._tokenizer.padding_side = "left"
        self._special = [str(t) for t in self._tokenizer.added_tokens_decoder.values() if t.special and len(str(t)) > 1]
        self._form = cache(self._choose_form)
        self._overhead = cache(self._count_overhead)

    @property
    def digest(self) -> str:
        """SHA-256 over the family's record, the checkpoint's chat template, the weights and the rule of cutting."""
        template = "" if self.family.written else str(self._processor.chat_template)
        decides = [asdict(self.family), template, fingerprint(self._model), GAP, SPARE]
        return hashlib.sha256(json.dumps(decides).encode()).hexdigest()

    @torch.inference_mode()
    def read(self, exchanges: Sequence[Exchange]) -> list[Reading]:
        """The probability that each reply is harmful; the batching does not show beyond rounding.

        Too long a request or reply loses its middle: head and tail are kept in equal parts, the request
        takes at most half the room.

        Raises:
            ModelProblem: The checkpoint's template does not put the exchange where a verdict can follow.
            BadImage: An image cannot be decoded.
            JudgeProblem: A batch does not fit into memory.
        """
        rows = [row for place, one in enumerate(exchanges) for row in self._rows(place, one)]
        rows.sort(key=lambda row: (self._sees(exchanges[row.place]), len(row.start)))
        found: dict[int, list[Reading]] = {place: [] for place in range(len(exchanges))}
        for seen in (False, True):
            alike = [row for row in rows if self._sees(exchanges[row.place]) == seen]
            for k in range(0, len(alike), BATCH):
                batch = alike[k : k + BATCH]
                with _memory(self.name):
                    values = self._probabilities(batch, exchanges if seen else ()).tolist()
                for row, value in zip(batch, values, strict=True):
                    found[row.place].append(Reading(value, row.guideline, row.cut))
        return [_worst(readings) for readings in found.values()]

    def prompts(self, request: str, reply: str, seen: bool = False) -> list[str]:
        """What the model is asked, one text a guideline, up to where its verdict begins.

        Special tokens in the texts are broken up, so that a reply cannot close its own turn.
        """
        request, reply = self._plain(request), self._plain(reply)
        if self.family.written:
            bos: str = self._tokenizer.bos_token or ""
            return [self.family.written.format(bos=bos, request=request, reply=reply)]
        return [self._templated(request, reply, seen, guideline) for guideline in self.family.guidelines]

    def _sees(self, exchange: Exchange) -> bool:
        return self.family.sees and exchange.image is not None

    def _rows(self, place: int, exchange: Exchange) -> list[_Row]:
        seen = self._sees(exchange)
        whole = self._plain(exchange.prompt), self._plain(exchange.reply)
        request, reply = self._fitted(*whole, seen)
        cut = (request, reply) != whole
        prompts = self.prompts(request, reply, seen)
        return [
            _Row(place, guideline, prompt, *self._labelled(prompt), cut)
            for guideline, prompt in zip(self.family.guidelines, prompts, strict=True)
        ]

    def _plain(self, text: str) -> str:
        for token in self._special:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def _templated(self, request: str, reply: str, seen: bool, guideline: str) -> str:
        return _after_header(self._rendered(self._form(), request, reply, seen, guideline))

    def _rendered(self, form: _Form, request: str, reply: str, seen: bool, guideline: str) -> str:
        policy = {"guideline": guideline} if guideline else {}
        messages = _messages(request, reply, seen, form.parts)
        return written(self._processor, messages, add_generation_prompt=form.opened, **policy)

    def _choose_form(self) -> _Form:
        """How the template wants its words; a template of another kind of model fits no form."""
        for form in FORMS:
            if self.family.sees and not form.parts:
                continue
            try:
                text = self._rendered(form, "Request?", "Reply.", False, self.family.guidelines[0])
            except Exception:  # a template may raise whatever its author chose; the next form may please it
                continue
            ends = text.rstrip().endswith(HEADER_ENDS)
            named = all(re.search(rf"\b{label[0]}\b", text) for label in (self.family.harmful, self.family.harmless))
            if "Request?" in text and "Reply." in text and named and (ends or not self.family.headed):
                return form
        raise ModelProblem(
            f"{self.name}: its chat template does not show request and reply, name the labels and end where a "
            f"verdict of {self.family.name} begins.",
            "Check the family, and that tokenizer_config.json and chat_template.jinja are the guard's own.",
        )

    def _fitted(self, request: str, reply: str, seen: bool) -> tuple[str, str]:
        limit = min(self.family.tokens, int(self._model.config.get_text_config().max_position_embeddings))
        room = limit - self._overhead(seen) - SPARE
        asked, said = self._count(request), self._count(reply)
        if asked + said <= room:
            return request, reply
        if room < 4 * self._count(GAP):
            raise ModelProblem(
                f"{self.name} reads {limit} tokens, too few for its own instructions.", "Use another guard model."
            )
        request = self._cut(request, max(room // 2, room - said))
        return request, self._cut(reply, room - min(asked, self._count(request)))

    def _cut(self, text: str, tokens: int) -> str:
        places: list[tuple[int, int]] = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)[
            "offset_mapping"
        ]
        if len(places) <= tokens:
            return text
        half = (tokens - self._count(GAP)) // 2
        return text[: places[half - 1][1]] + GAP + text[places[-half][0] :]

    def _count(self, text: str) -> int:
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _count_overhead(self, seen: bool) -> int:
        longest = max(self.family.harmful + self.family.harmless, key=len)
        return max(self._count(prompt + longest) for prompt in self.prompts("", "", seen))

    def _labelled(self, prompt: str) -> tuple[list[int], list[list[int]], list[list[int]]]:
        """The tokens all labels share, prompt included, and those of each label from there on.

        Prompt and label are tokenised as one text, as in training.
        """
        labels = [*self.family.harmful, *self.family.harmless]
        rows: list[list[int]] = self._tokenizer([prompt + label for label in labels], add_special_tokens=False)[
            "input_ids"
        ]
        shared = 0
        while all(shared < len(row) for row in rows) and len({row[shared] for row in rows}) == 1:
            shared += 1
        ends = [row[shared:] for row in rows]
        if not all(ends):
            raise ModelProblem(
                f"{self.name}: its tokenizer cannot tell the labels apart.", "Check the tokenizer's files."
            )
        split = len(self.family.harmful)
        return rows[0][:shared], ends[:split], ends[split:]

    def _probabilities(self, batch: Sequence[_Row], pictured: Sequence[Exchange]) -> Float[Tensor, " row"]:
        if all(not _firsts(row.harmful) & _firsts(row.harmless) for row in batch):
            logits = self._last_logits(batch, pictured)
            return torch.stack([_share(logits[k], row) for k, row in enumerate(batch)])
        if self.family.sees:
            raise ModelProblem(
                f"{self.name}: the first token does not tell its labels apart.", "Check the tokenizer's files."
            )
        return self._by_sequence(batch)

    def _last_logits(self, batch: Sequence[_Row], pictured: Sequence[Exchange]) -> Float[Tensor, "row vocabulary"]:
        """Next-token logits after what the labels share."""
        if not pictured:
            inputs = self._padded([row.start for row in batch])
        else:
            images = [[image.decode()] for row in batch if (image := pictured[row.place].image) is not None]
            inputs = dict(
                self._processor(
                    text=[row.prompt for row in batch], images=images, add_special_tokens=False,
                    padding=True, return_tensors="pt",
                ).to(self._model.device)
            )  # fmt: skip
            inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
            self._check_tails(batch, inputs["input_ids"])
        return self._model(**inputs, use_cache=False, logits_to_keep=1).logits[:, -1].float()

    def _check_tails(self, batch: Sequence[_Row], ids: Int[Tensor, "row token"]) -> None:
        """With an image the processor makes the tokens; they must end where the labels begin."""
        if any(row.start[-1] != int(last) for row, last in zip(batch, ids[:, -1], strict=True)):
            raise ModelProblem(
                f"{self.name}: its tokenizer runs prompt and label together.", "Check the tokenizer's files."
            )

    def _by_sequence(self, batch: Sequence[_Row]) -> Float[Tensor, " row"]:
        """From the log-probability of each label's tokens; the prompt is read once for all its labels."""
        inputs = self._padded([row.start for row in batch])
        out = self._model(**inputs, use_cache=True, logits_to_keep=1)
        ends = [[*row.harmful, *row.harmless] for row in batch]
        count = len(ends[0])
        out.past_key_values.batch_repeat_interleave(count)
        tails, real = _right_padded([end for row in ends for end in row])
        tails, real = tails.to(self._model.device), real.to(self._model.device)
        mask = torch.cat([inputs["attention_mask"].repeat_interleave(count, 0), real], dim=1)
        rest = self._model(
            input_ids=tails, attention_mask=mask, position_ids=_positions(mask)[:, -tails.shape[1] :],
            past_key_values=out.past_key_values, use_cache=True,
        ).logits  # fmt: skip
        logits = torch.cat([out.logits.repeat_interleave(count, 0), rest[:, :-1]], dim=1).float()
        told = logits.gather(2, tails.unsqueeze(2)).squeeze(2) - logits.logsumexp(2)
        scores = torch.where(real.bool(), told, 0.0).sum(1).view(len(batch), count)
        split = len(self.family.harmful)
        return torch.sigmoid(scores[:, :split].logsumexp(1) - scores[:, split:].logsumexp(1))

    def _padded(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Padded on the left; the padding is masked, so its token does not matter."""
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": _positions(mask)}
        return {key: value.to(self._model.device) for key, value in inputs.items()}


def _messages(request: str, reply: str, seen: bool, parts: bool) -> list[dict[str, Any]]:
    if not parts:
        return [{"role": "user", "content": request}, {"role": "assistant", "content": reply}]
    asked = [{"type": "image"}] * seen + [{"type": "text", "text": request}]
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": [{"type": "text", "text": reply}]}]


def _after_header(text: str) -> str:
    """With the two line ends that follow a header, where the text ends with one."""
    bare = text.rstrip()
    return bare + "\n\n" if bare.endswith(HEADER_ENDS) else text


def _firsts(labels: Sequence[Sequence[int]]) -> set[int]:
    return {label[0] for label in labels}


def _share(logits: Float[Tensor, " vocabulary"], row: _Row) -> Float[Tensor, ""]:
    """Softmax over the first tokens of all labels, the harmful ones added up."""
    harmful, harmless = sorted(_firsts(row.harmful)), sorted(_firsts(row.harmless))
    return torch.sigmoid(logits[harmful].logsumexp(0) - logits[harmless].logsumexp(0))


def _worst(readings: Sequence[Reading]) -> Reading:
    """The reading with the highest probability; one that is not a number stands out before all."""
    return max(readings, key=lambda one: 2.0 if one.harmful != one.harmful else one.harmful)


def _positions(mask: Int[Tensor, "row token"]) -> Int[Tensor, "row token"]:
    return (mask.cumsum(1) - 1).clamp(min=0)


def _right_padded(rows: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "row token"], Int[Tensor, "row token"]]:
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])


@contextmanager
def _memory(name: str) -> Generator[None]:
    try:
        yield
    except RuntimeError as problem:
        if not (isinstance(problem, torch.OutOfMemoryError) or "allocate memory" in str(problem)):
            raise
        raise JudgeProblem(
            f"{name}: a batch of {BATCH} does not fit into memory.", "Free memory, or use a smaller guard model."
        ) from problem
