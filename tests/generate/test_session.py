"""Sessions: the cache agrees with a run from scratch after every operation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generate.tiny_models import GMASK, SOP, VOCAB, write_tiny
from pocketglm.errors import EngineError, InputError
from pocketglm.generate import session as session_module
from pocketglm.generate.batch import decode_together
from pocketglm.generate.model import Model, load
from pocketglm.generate.session import Session, common_prefix


def text(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, 256, length).tolist()


def from_scratch(model: Model, ids: list[int]) -> np.ndarray:
    with model.session() as session:
        return session.forward(ids)


def test_steps_equal_one_pass(causal: Model) -> None:
    ids = text(20)
    expected = from_scratch(causal, ids)
    assert expected.dtype == np.float32
    assert expected.shape == (20, VOCAB)
    with causal.session() as session:
        parts = [session.forward(ids[:7]), session.forward([ids[7]]), session.forward(ids[8:])]
        assert session.length == 20
        assert session.token_ids == tuple(ids)
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-4)


def test_last_only_gives_the_last_row(causal: Model) -> None:
    ids = text(9)
    with causal.session() as session:
        last = session.forward(ids, last_only=True)
    assert last.shape == (1, VOCAB)
    np.testing.assert_allclose(last[0], from_scratch(causal, ids)[-1], atol=1e-4)


def test_a_long_prompt_in_chunks_equals_one_pass(causal: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = text(50)
    expected = from_scratch(causal, ids)
    monkeypatch.setattr(session_module, "CHUNK_ROWS", 16)
    with causal.session() as session:
        assert [len(piece) for piece in session.chunks(ids)] == [16, 16, 16, 2]
    np.testing.assert_allclose(from_scratch(causal, ids), expected, atol=1e-4)


def test_a_bidirectional_context_goes_in_one_piece(prefixed: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [*text(40), GMASK, SOP, *text(30, 1)]
    expected = from_scratch(prefixed, ids)
    monkeypatch.setattr(session_module, "CHUNK_ROWS", 16)
    with prefixed.session() as session:
        assert [len(piece) for piece in session.chunks(ids)] == [42, 16, 14]
    np.testing.assert_allclose(from_scratch(prefixed, ids), expected, atol=1e-4)


def test_truncate_then_go_on(causal: Model) -> None:
    ids, other = text(12), text(5, 1)
    with causal.session() as session:
        session.forward(ids)
        session.truncate(8)
        assert session.length == 8
        rows = session.forward(other)
    np.testing.assert_allclose(rows, from_scratch(causal, ids[:8] + other)[8:], atol=1e-4)


@pytest.mark.parametrize("length", [-1, 13])
def test_truncate_outside_the_sequence_is_refused(causal: Model, length: int) -> None:
    with causal.session() as session:
        session.forward(text(12))
        with pytest.raises(InputError, match="truncate"):
            session.truncate(length)
        assert session.length == 12


def test_part_of_a_bidirectional_context_cannot_be_forgotten(prefixed: Model) -> None:
    with prefixed.session() as session:
        session.forward([*text(6), GMASK, SOP, 1, 2])
        with pytest.raises(InputError, match="see one another"):
            session.truncate(4)
        session.truncate(8)
        session.truncate(0)
        assert session.length == 0


def test_a_text_beyond_the_context_is_refused_and_changes_nothing(causal: Model) -> None:
    with causal.session() as session:
        session.forward(text(10))
        with pytest.raises(InputError, match=r"needs 1201 tokens, the model's context holds 1200"):
            session.forward(text(1191))
        assert session.length == 10


def test_wrong_ids_are_refused_and_change_nothing(causal: Model) -> None:
    with causal.session() as session:
        session.forward(text(3))
        for wrong in ([VOCAB], [1, -1], []):
            with pytest.raises(InputError):
                session.forward(wrong)
        assert session.length == 3
        assert all(stage.length(session._sequence) == 3 for stage in causal.stages)


def test_a_context_without_sop_is_refused(prefixed: Model) -> None:
    with prefixed.session() as session:
        with pytest.raises(InputError, match="sop"):
            session.forward(text(5))
        session.forward([1, GMASK, SOP])


@pytest.mark.parametrize("failure", [EngineError("out of memory"), KeyboardInterrupt()])
def test_a_failure_half_way_leaves_the_session_as_it_was(
    causal: Model, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    """The second chunk fails after the stage has already taken it in."""
    monkeypatch.setattr(session_module, "CHUNK_ROWS", 8)
    ids, calls = text(30), []
    stage = causal.stages[0]
    real = stage.forward

    def failing(*arguments: Any) -> Any:
        result = real(*arguments)
        calls.append(1)
        if len(calls) == 2:
            raise failure
        return result

    with causal.session() as session:
        session.forward(ids[:5])
        with monkeypatch.context() as patch:
            patch.setattr(stage, "forward", failing)
            with pytest.raises(type(failure)):
                session.forward(ids[5:])
        assert session.length == 5
        rows = session.forward(ids[5:])
    np.testing.assert_allclose(rows, from_scratch(causal, ids)[5:], atol=1e-4)


class TestReuse:
    def test_keeps_the_common_beginning(self, causal: Model) -> None:
        ids = text(20)
        changed = [*ids[:15], 300 % VOCAB, *ids[16:]]
        with causal.session() as session:
            session.forward(ids)
            assert session.reuse(changed) == 15
            rows = session.forward(changed[15:])
        np.testing.assert_allclose(rows, from_scratch(causal, changed)[15:], atol=1e-4)

    def test_leaves_the_last_token_to_be_computed(self, causal: Model) -> None:
        ids = text(10)
        with causal.session() as session:
            session.forward(ids)
            assert session.reuse(ids) == 9
            assert session.reuse(ids[:4]) == 3

    def test_an_empty_session_has_nothing_to_reuse(self, causal: Model, prefixed: Model) -> None:
        with causal.session() as one, prefixed.session() as other:
            assert one.reuse(text(5)) == 0
            assert other.reuse([*text(5), GMASK, SOP]) == 0

    def test_a_bidirectional_context_counts_as_a_whole(self, prefixed: Model) -> None:
        prompt = [*text(10), GMASK, SOP]
        with prefixed.session() as session:
            session.forward([*prompt, 1, 2, 3])
            assert session.reuse([*prompt, 1, 2, 9]) == 14
            assert session.reuse(prompt) == 11  # all but <sop>, which every context token ignores
            rows = session.forward([SOP, 5])
            np.testing.assert_allclose(rows, from_scratch(prefixed, [*prompt, 5])[-2:], atol=1e-4)
            # a longer prompt moves [gMASK] and <sop>: nothing of the cache is right any more
            assert session.reuse([*text(10), 1, 2, GMASK, SOP]) == 0
            assert session.length == 0

    def test_the_same_tokens_with_sop_elsewhere_are_another_context(self, prefixed: Model) -> None:
        with prefixed.session() as session:
            session.forward([1, GMASK, SOP, 4])
            assert session.reuse([1, GMASK, 7, SOP, 4]) == 0

    def test_common_prefix(self) -> None:
        assert common_prefix([1, 2, 3], [1, 2, 4, 5]) == 2
        assert common_prefix([], [1]) == 0
        assert common_prefix([1], [1, 2]) == 1


class TestFiles:
    @pytest.mark.parametrize("kind", ["causal", "prefixed"])
    def test_a_saved_session_goes_on_where_it_was(
        self, kind: str, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        model: Model = request.getfixturevalue(kind)
        ids = [*text(8), GMASK, SOP, *text(4, 1)]
        with model.session() as session:
            session.forward(ids)
            session.save(tmp_path / "s.npz")
        with model.session() as session:
            session.forward([5, GMASK, SOP])  # what was there is replaced
            session.restore(tmp_path / "s.npz")
            assert session.token_ids == tuple(ids)
            rows = session.forward([7, 8])
        np.testing.assert_allclose(rows, from_scratch(model, [*ids, 7, 8])[-2:], atol=1e-4)

    def test_an_empty_session_can_be_saved(self, causal: Model, tmp_path: Path) -> None:
        with causal.session() as session:
            session.save(tmp_path / "s.npz")
            session.forward([1])
            session.restore(tmp_path / "s.npz")
            assert session.length == 0

    def test_another_package_is_refused(self, causal: Model, tmp_path: Path) -> None:
        with causal.session() as session:
            session.forward([1, 2])
            session.save(tmp_path / "s.npz")
        other = write_tiny(tmp_path / "other", seed=1)
        with load(other, "reference") as model:
            session = model.session()
            with pytest.raises(InputError, match="another package"):
                session.restore(tmp_path / "s.npz")

    @pytest.mark.parametrize(
        "change",
        [
            {"format": np.array("other")},
            {"tokens": np.array([1.5, 2.5])},
            {"tokens": np.array([1, VOCAB])},
            {"tokens": np.array([1])},
            {"keys": np.zeros((3, 2, 4, 15), np.float32)},
            {"values": np.zeros((3, 2, 4, 16), np.int32)},
            {"values": None},
            {"keys": np.array([{}], dtype=object)},
        ],
        ids=lambda change: "-".join(change),
    )
    def test_a_damaged_file_is_refused(self, causal: Model, tmp_path: Path, change: dict[str, Any]) -> None:
        path = tmp_path / "s.npz"
        with causal.session() as session:
            session.forward([1, 2])
            session.save(path)
            with np.load(path) as data:
                arrays = {**data, **change}
            np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
            with pytest.raises(InputError, match=r"s\.npz"):
                session.restore(path)
            assert session.length == 2

    def test_a_file_that_is_no_session_is_refused(self, causal: Model, tmp_path: Path) -> None:
        (tmp_path / "noise").write_bytes(b"\x00" * 100)
        (tmp_path / "zip").write_bytes(b"PK\x03\x04 cut short")
        with causal.session() as session:
            for name in ("noise", "zip", "absent"):
                with pytest.raises(InputError, match=name):
                    session.restore(tmp_path / name)

    def test_an_unwritable_place_is_an_input_error(self, causal: Model, tmp_path: Path) -> None:
        with causal.session() as session, pytest.raises(InputError, match="cannot write"):
            session.save(tmp_path / "no" / "such" / "folder.npz")


def test_a_closed_session_says_so(causal: Model) -> None:
    session = causal.session()
    session.close()
    session.close()
    with pytest.raises(InputError, match="closed"):
        session.forward([1])


class TestBatches:
    def test_a_batch_equals_each_alone(self, causal: Model) -> None:
        prompts = [text(4), text(9, 1), text(1, 2)]
        sessions = [causal.session() for _ in prompts]
        for session, prompt in zip(sessions, prompts, strict=True):
            session.forward(prompt)
        logits = decode_together(sessions, [5, 6, 7])
        for row, prompt, token in zip(logits, prompts, [5, 6, 7], strict=True):
            np.testing.assert_allclose(row, from_scratch(causal, [*prompt, token])[-1], atol=1e-4)
        for session in sessions:
            session.close()

    def test_a_failed_batch_changes_no_session(self, causal: Model) -> None:
        with causal.session() as one, causal.session() as other:
            one.forward([1, 2])
            other.forward([3])
            with pytest.raises(InputError, match="outside the vocabulary"):
                decode_together([one, other], [4, VOCAB])
            assert (one.length, other.length) == (2, 1)
            one.forward([4])

    def test_wrong_batches_are_refused(self, causal: Model, prefixed: Model) -> None:
        with causal.session() as one, prefixed.session() as other:
            for sessions, tokens in (([], []), ([one], [1, 2]), ([one, other], [1, 2])):
                with pytest.raises(InputError):
                    decode_together(sessions, tokens)


def test_sessions_are_independent(causal: Model) -> None:
    def open_with(ids: list[int]) -> Session:
        session = causal.session()
        session.forward(ids)
        return session

    one, other = open_with(text(5)), open_with(text(7, 1))
    np.testing.assert_allclose(one.forward([3]), from_scratch(causal, [*text(5), 3])[-1:], atol=1e-4)
    one.close()
    np.testing.assert_allclose(other.forward([3]), from_scratch(causal, [*text(7, 1), 3])[-1:], atol=1e-4)
    other.close()


def test_the_last_logits_of_a_long_text_keep_no_other_rows(causal: Model) -> None:
    """A memory limit plans for the rows of one piece."""
    ids = text(session_module.CHUNK_ROWS + 10)
    with causal.session() as session:
        assert len(session.hidden(ids, last_only=True)) == 10
        session.truncate(0)
        last = session.forward(ids, last_only=True)
    np.testing.assert_allclose(last[0], from_scratch(causal, ids)[-1], atol=1e-4)
