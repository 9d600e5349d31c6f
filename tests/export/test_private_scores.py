"""Private scores are the plain ones, and what must stay where it is stays there."""

from __future__ import annotations

import json
import socket
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from typer.testing import CliRunner

from vlmend.cli import app
from vlmend.core.dual_edits import MapTexts, ScaleLogits
from vlmend.core.examples import Dataset, Example
from vlmend.core.images import Image, noise_image
from vlmend.core.mend import Mend, MendCard
from vlmend.core.provenance import versions
from vlmend.errors import BadData, BadParameter, EnvironmentProblem, MendMismatch, ModelProblem, RunProblem, UsageError
from vlmend.export.he import EXPORTER
from vlmend.export.mpc import EXPORTER as PARTIES
from vlmend.export.private.asking import ask
from vlmend.export.private.ckks import Keys, Scorer
from vlmend.export.private.exporting import AbstractHeadExporter, head_of, layer_of
from vlmend.export.private.head import KEY, Head, read_asker, read_head
from vlmend.export.private.scoring import address_of
from vlmend.export.private.serving import BAD, GOOD, answer
from vlmend.export.private.wire import Line, packed, unpacked
from vlmend.models.dual.encoder import DualEncoder
from vlmend.pictures.galleries import PHOTO
from vlmend.testing import tiny_clip

pytest.importorskip("tenseal")
if find_spec("mpyc") is None:  # importing it reads the arguments of pytest
    pytest.skip("needs mpyc", allow_module_level=True)

NAMES = ("cat", "dog", "house")
ROWS = Dataset("rows", tuple(Example(name, image=noise_image(16, k), answers=(name,)) for k, name in enumerate(NAMES)))
BROKEN = Example("broken", image=Image(b"no picture", "broken"), answers=("cat",))


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys.new()


@pytest.fixture(scope="module")
def clip() -> DualEncoder:
    return tiny_clip()


def mend_of(base: DualEncoder, *edits: MapTexts | ScaleLogits) -> Mend:
    card = MendCard(
        "hand", {}, base.name, base.model_digest, "none", "", 0, versions(), {}, "none", dict(base.identity)
    )
    return Mend(edits, card)


def random_head(classes: int, width: int, scale: float = 1.0) -> Head:
    draw = torch.Generator().manual_seed(classes * width)
    return Head(scale * torch.randn(classes, width, generator=draw), torch.randn(classes, generator=draw))


# --- the head


def test_the_head_is_the_model_mends_and_all(clip: DualEncoder) -> None:
    width = clip.embed_texts(["a"]).shape[1]
    turned = torch.eye(width).roll(1, 0)
    for view in (clip, clip.with_mend(mend_of(clip, MapTexts(turned), ScaleLogits(0.5)))):
        images = [row.image for row in ROWS.examples if row.image is not None]
        logits = view.logits(images, [PHOTO.format(name) for name in NAMES])
        assert torch.allclose(head_of(view, NAMES).scores(view.embed_images(images)), logits, atol=1e-4)


def test_a_linear_layer_is_read_and_its_faults_are_told(tmp_path: Path) -> None:
    file = tmp_path / "layer.safetensors"
    save_file({"weight": torch.eye(3), "bias": torch.ones(3)}, file)
    head, names = layer_of(file, 3)
    assert names == ("0", "1", "2")
    assert head.scores(torch.tensor([[1.0, 0.0, 2.0]])).tolist() == [[2.0, 1.0, 3.0]]
    with pytest.raises(BadData, match="3 x 3"):
        layer_of(file, 4)
    save_file({"weight": torch.full((3, 3), torch.nan)}, file)
    with pytest.raises(BadData, match="numbers that are none"):
        layer_of(file, 3)
    file.write_bytes(b"nothing")
    with pytest.raises(BadData, match="no safetensors file"):
        layer_of(file, 3)


def test_scores_that_encrypted_numbers_cannot_hold_are_refused(clip: DualEncoder, tmp_path: Path) -> None:
    file = tmp_path / "layer.safetensors"
    save_file({"weight": 1e6 * torch.ones(2, clip.embed_texts(["a"]).shape[1])}, file)
    with pytest.raises(ModelProblem, match="as large as"):
        EXPORTER.write(clip, tmp_path / "out", {"head": file})
    assert not (tmp_path / "out").exists()


def test_without_classes_nothing_is_exported(clip: DualEncoder, tmp_path: Path) -> None:
    for options in ({}, {"data": ROWS, "head": tmp_path / "layer"}):
        with pytest.raises(BadParameter, match="one of data and head"):
            EXPORTER.write(clip, tmp_path / "out", options)
    with pytest.raises(BadParameter, match="no option always"):
        EXPORTER.write(clip, tmp_path / "out", {"always": True})
    one = replace(ROWS, examples=ROWS.examples[:1])
    with pytest.raises(BadData, match="names 1 classes"):
        EXPORTER.write(clip, tmp_path / "out", {"data": one})


# --- encryption


def test_what_is_decrypted_is_what_was_computed(keys: Keys) -> None:
    head = random_head(3, 17, 30)
    scorer = Scorer(head, keys.public)
    for seed in range(3):
        embedding = torch.nn.functional.normalize(torch.randn(17, generator=torch.Generator().manual_seed(seed)), dim=0)
        found = keys.decrypt(scorer.scores(keys.encrypt(embedding)))
        assert torch.allclose(found, head.scores(embedding[None])[0], atol=1e-4)


def test_the_server_cannot_decrypt(keys: Keys) -> None:
    import tenseal

    scorer = Scorer(random_head(2, 4), keys.public)
    assert not scorer.context.is_private()
    held = tenseal.ckks_vector_from(scorer.context, keys.encrypt(torch.ones(4)))
    with pytest.raises(ValueError, match="secret_key"):
        held.decrypt()


def test_a_secret_key_that_was_sent_is_thrown_away(keys: Keys) -> None:
    with pytest.raises(BadData, match="sent its secret key"):
        Scorer(random_head(2, 4), keys.context.serialize(save_secret_key=True))


def test_two_ciphertexts_of_one_embedding_differ(keys: Keys) -> None:
    assert keys.encrypt(torch.ones(4)) != keys.encrypt(torch.ones(4))


def test_answers_give_the_head_away_as_the_page_says(keys: Keys) -> None:
    width = 5
    head = random_head(2, width)
    scorer = Scorer(head, keys.public)
    asked = torch.cat([torch.zeros(1, width), torch.eye(width)])
    found = torch.stack([keys.decrypt(scorer.scores(keys.encrypt(one))) for one in asked])
    assert torch.allclose((found[1:] - found[0]).T, head.weight, atol=1e-3)


def test_keys_are_kept_for_their_owner_alone(keys: Keys, tmp_path: Path) -> None:
    file = tmp_path / "key"
    with pytest.raises(UsageError, match="cannot be read"):
        Keys.at(file)
    keys.save(file)
    assert file.stat().st_mode & 0o077 == 0
    scorer = Scorer(random_head(2, 4), keys.public)
    answered = scorer.scores(keys.encrypt(torch.ones(4)))
    assert torch.allclose(Keys.at(file).decrypt(answered), keys.decrypt(answered), atol=1e-6)
    file.chmod(0o644)
    with pytest.raises(UsageError, match="read by others"):
        Keys.at(file)
    file.write_bytes(b"nothing")
    file.chmod(0o600)
    with pytest.raises(BadData, match="no key of vlmend"):
        Keys.at(file)


# --- the wire


@given(st.lists(st.binary(max_size=40), max_size=6))
@settings(max_examples=60)
def test_pieces_come_out_as_they_went_in(parts: list[bytes]) -> None:
    assert unpacked(packed(parts)) == parts


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4), st.integers(1, 8))
@settings(max_examples=60)
def test_a_message_that_was_cut_off_is_told(parts: list[bytes], lost: int) -> None:
    with pytest.raises(EnvironmentProblem, match="announces"):
        unpacked(packed(parts)[: -min(lost, len(parts[-1]))])


@contextmanager
def served(head: Head) -> Generator[Line]:
    ours, theirs = socket.socketpair()
    ours.settimeout(20)

    def serve() -> None:
        with theirs:
            answer(Line(theirs), head)

    thread = Thread(target=serve)
    thread.start()
    with ours:
        yield Line(ours)
    thread.join(10)
    assert not thread.is_alive()


def test_the_server_tells_what_is_wrong_and_goes_on(keys: Keys) -> None:
    head = random_head(2, 4)
    with served(head) as line:
        line.send(b"no key")
        assert line.receive().startswith(BAD + b"What came is no public key")
        line.send(keys.public)
        assert line.receive() == GOOD
        line.send(keys.encrypt(torch.ones(3)))
        assert b"it has 3 numbers" in line.receive()
        line.send(keys.encrypt(torch.ones(4)))
        found = keys.decrypt(unpacked(line.receive()[1:]))
        assert torch.allclose(found, head.scores(torch.ones(1, 4))[0], atol=1e-4)
        assert line.sent > len(keys.encrypt(torch.ones(4)))


def test_a_frame_larger_than_any_ends_the_connection() -> None:
    with served(random_head(2, 4)) as line:
        line.socket.sendall(b"\xff" * 8)
        assert line.receive() == b""


@pytest.mark.parametrize("text", ["8123", ":8123", "host:", "host:x", "host:70000"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadParameter, match="no HOST:PORT"):
        address_of(text)


# --- the whole


@pytest.mark.parametrize("exporter", [EXPORTER, PARTIES], ids=["he", "mpc"])
def test_pictures_are_named_as_in_the_clear_by_processes_of_their_own(
    exporter: AbstractHeadExporter, clip: DualEncoder, tmp_path: Path
) -> None:
    out = tmp_path / "head"
    made = exporter.write(clip, out, {"data": ROWS})
    assert made["error"] < 1e-4
    assert "weight" not in (out / "client" / "client.json").read_text()
    asker = read_asker(out)
    found = ask(clip, [*ROWS.examples, BROKEN], out, asker)
    assert [name for name, _ in found.left_out] == ["broken"]
    assert found.agreement is not None
    assert found.agreement.value == 1
    images = [row.image for row in ROWS.examples if row.image is not None]
    plain = clip.logits(images, [PHOTO.format(name) for name in asker.names])
    assert torch.allclose(found.found.scores, plain, atol=1e-3)
    assert found.values["bytes_once"] > 0 < found.values["bytes_sent"]
    assert json.loads(json.dumps(found.values))["n"] == 3
    if exporter is EXPORTER:
        assert (out / KEY).stat().st_mode & 0o077 == 0
    with pytest.raises(MendMismatch, match="other ones are given"):
        asker.check(clip.with_mend(mend_of(clip, ScaleLogits(2.0))))
    with pytest.raises(MendMismatch, match="other weights"):
        asker.check(tiny_clip(1))
    with pytest.raises(RunProblem, match="there already"):
        exporter.write(clip, out, {"data": ROWS})


def test_the_two_halves_are_read_or_refused(clip: DualEncoder, tmp_path: Path) -> None:
    out = tmp_path / "head"
    EXPORTER.write(clip, out, {"data": ROWS})
    assert torch.equal(read_head(out).weight, head_of(clip, sorted(NAMES)).weight)
    (out / "client" / "client.json").write_text('{"way": "post"}')
    with pytest.raises(BadData, match="cannot be read"):
        read_asker(out)
    with pytest.raises(BadData, match="cannot be read as a head"):
        read_head(tmp_path)


def test_a_server_that_is_not_there_is_told(tmp_path: Path, clip: DualEncoder) -> None:
    out = tmp_path / "head"
    EXPORTER.write(clip, out, {"data": ROWS})
    with pytest.raises(RunProblem, match="does not answer"):
        ask(clip, ROWS.examples, out, read_asker(out), server="127.0.0.1:9")
    with pytest.raises(BadParameter, match="exported as he"):
        ask(clip, ROWS.examples, out, read_asker(out), parties=["a:1", "b:2", "c:3"])


def test_the_verb_says_first_what_is_not_private(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    for k, name in enumerate(NAMES):
        (tmp_path / f"{k}.png").write_bytes(noise_image(16, k).content)
        with data.open("a") as file:
            file.write(json.dumps({"id": name, "image": f"{k}.png", "answers": [name]}) + "\n")
    out, run = str(tmp_path / "head"), CliRunner().invoke
    made = run(app, ["export", "he", "phantom-clip", "--data", str(data), "--out", out])
    assert made.exit_code == 0, made.output
    assert made.stdout.startswith("not private: the image tower")
    named = run(app, ["score", out, "--data", str(data), "--out", str(tmp_path / "named.jsonl")])
    assert named.exit_code == 0, named.output
    assert named.stdout.startswith("not private: the image tower")
    assert "the same class as in the clear: 100.0%" in named.stdout
    assert len((tmp_path / "named.jsonl").read_text().splitlines()) == 3
