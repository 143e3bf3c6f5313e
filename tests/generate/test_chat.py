"""Conversations: their file, and what happens when they grow too long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pocketglm.errors import InputError
from pocketglm.generate.chat import Conversation


def talk(turns: int, system: str | None = "be brief") -> Conversation:
    conversation = Conversation(system)
    for index in range(turns):
        conversation.add("user", f"question {index}")
        conversation.add("assistant", f"answer {index}")
    conversation.add("user", "last")
    return conversation


def one_token_a_message(messages: Sequence[Mapping[str, Any]]) -> list[int]:
    return [1] * len(messages)


def test_messages_start_with_the_system_prompt() -> None:
    assert [m["role"] for m in talk(1).messages] == ["system", "user", "assistant", "user"]
    assert [m["role"] for m in talk(0, None).messages] == ["user"]


def test_dropping_the_oldest_turn_keeps_the_system_prompt_and_the_last_question() -> None:
    conversation = talk(2)
    assert conversation.drop_oldest()
    assert [m["content"] for m in conversation.messages] == ["be brief", "question 1", "answer 1", "last"]
    assert conversation.drop_oldest()
    assert not conversation.drop_oldest()
    assert [m["content"] for m in conversation.messages] == ["be brief", "last"]


def test_fit_raises_or_drops() -> None:
    conversation = talk(3)
    assert len(conversation.fit(one_token_a_message, 8)) == 8
    with pytest.raises(InputError, match="needs 8 tokens, 5 are left"):
        conversation.fit(one_token_a_message, 5)
    assert len(conversation.turns) == 7
    assert len(conversation.fit(one_token_a_message, 5, "drop_oldest")) == 4
    assert conversation.turns[0]["content"] == "question 2"


def test_fit_gives_up_when_the_last_question_alone_is_too_long() -> None:
    with pytest.raises(InputError, match="needs 2 tokens, 1 are left"):
        talk(3).fit(one_token_a_message, 1, "drop_oldest")


def test_a_file_gives_the_conversation_back(tmp_path: Path) -> None:
    conversation = talk(2)
    conversation.add("assistant", "你好，“世界”\n\t🙂")
    conversation.save(tmp_path / "talk.json")
    assert Conversation.load(tmp_path / "talk.json") == conversation
    assert "你好" in (tmp_path / "talk.json").read_text("utf-8")
    conversation.clear()
    assert conversation.messages == [{"role": "system", "content": "be brief"}]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": "other"}',
        '{"format": "pocketglm-conversation", "version": 2}',
        '{"format": "pocketglm-conversation", "version": 1, "system": 5, "turns": []}',
        '{"format": "pocketglm-conversation", "version": 1, "system": null, "turns": {}}',
        '{"format": "pocketglm-conversation", "version": 1, "turns": [{"role": "tool", "content": ""}]}',
        '{"format": "pocketglm-conversation", "version": 1, "turns": [{"role": "user"}]}',
        '{"format": "pocketglm-conversation", "version": 1, "turns": ["user"]}',
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "talk.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"talk\.json"):
        Conversation.load(path)


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        Conversation.load(tmp_path / "absent")
    (tmp_path / "noise").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        Conversation.load(tmp_path / "noise")
    with pytest.raises(InputError, match="cannot write"):
        talk(1).save(tmp_path / "no" / "folder.json")
