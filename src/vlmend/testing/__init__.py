"""Small models, fakes, and the contract of every kind of plug-in as checks: for our tests and those of other packages.

    from vlmend.testing import check_method

    def test_my_method_keeps_the_contract():
        check_method(MyMethod)  # or its registered name

A check runs every law and raises one AssertionError that names the plug-in, each law that it breaks, and what was seen.
`laws_of_method` and its like give the same laws one by one, for `pytest.mark.parametrize`.
"""

from vlmend.testing.adapters import check_adapter, laws_of_adapter
from vlmend.testing.attacks import check_attack, laws_of_attack
from vlmend.testing.exporters import check_exporter, laws_of_exporter
from vlmend.testing.fakes import (
    ScriptedTarget,
    full_digest,
    hook_count,
    narrowed,
    tiny_clip,
    tiny_tokenizer,
    tiny_vlm,
)
from vlmend.testing.methods import check_method, laws_of_method
from vlmend.testing.steps import check_step, laws_of_step
from vlmend.testing.suites import check_suite, laws_of_suite

__all__ = [
    "ScriptedTarget", "check_adapter", "check_attack", "check_exporter", "check_method", "check_step", "check_suite",
    "full_digest", "hook_count", "laws_of_adapter", "laws_of_attack", "laws_of_exporter", "laws_of_method",
    "laws_of_step", "laws_of_suite", "narrowed", "tiny_clip", "tiny_tokenizer", "tiny_vlm",
]  # fmt: skip
