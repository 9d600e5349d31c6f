"""Timing counts the right work: forward calls, not seconds."""

from __future__ import annotations

from torch import Tensor, nn

from vlmend.core.conversation import Conversation, Sampling
from vlmend.core.images import noise_image
from vlmend.core.sites import Site
from vlmend.studies.overhead import phase_times
from vlmend.studies.remembering import remembering
from vlmend.testing import tiny_vlm

BATCH = [Conversation.ask("what is it", noise_image(16, 1)), Conversation.ask("and this one", noise_image(16, 2))]


def test_the_plain_sample_level_reads_three_times_even_on_a_model_that_remembers() -> None:
    """One warm-up and one round: prefill 2, reply 2, plain sample level 2 x 3 long reads."""
    target = remembering(tiny_vlm(seed=0))
    target.generate(BATCH, Sampling(1))  # the trial of the decode loop reads too, once
    long_reads = 0

    def count(module: nn.Module, args: tuple[Tensor, ...], output: object) -> None:
        nonlocal long_reads
        long_reads += args[0].shape[1] > 1

    handle = target.anatomy.blocks[0].register_forward_hook(count)
    phase_times(target, {"none": []}, BATCH, 4, 1)
    handle.remove()
    assert long_reads == 2 + 2 + 2 * 3


def test_a_remembering_model_reads_each_request_once_and_says_the_same() -> None:
    plain = tiny_vlm(seed=0)
    target, sites = remembering(plain), [Site("language", 0), Site("language", 3)]
    first, again = target.hidden(BATCH, sites), target.hidden(BATCH[::-1], sites[:1])
    seen = target.vision.calls
    assert (first[sites[0]] - plain.hidden(BATCH, sites)[sites[0]]).abs().max() < 1e-6
    assert (again[sites[0]].flip(0) == first[sites[0]]).all()
    target.hidden(BATCH, sites)
    assert target.vision.calls == seen + 1  # the one call is the plain model's: both share the counter
    assert remembering(target) is target
