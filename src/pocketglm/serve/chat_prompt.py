"""From a conversation to a prompt.

Enters: the messages and tools of a request. Leaves: token ids that fit the context. Rendering and
tokenizing take milliseconds for long texts, so endpoints call this in a thread.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pocketglm.errors import ContextError
from pocketglm.generate.model import Model
from pocketglm.serve.protocol import (
    AssistantMessage,
    ChatRequest,
    Content,
    Message,
    MessageToolCall,
    ToolDefinition,
)
from pocketglm.serve.tool_calls import ToolFormat

ANSWER_SHARE = 4
"""With a sliding window and no limit of tokens, the answer gets one part in this many of the context."""


def encode_chat(
    model: Model, request: ChatRequest, tools: Sequence[ToolDefinition], form: ToolFormat | None
) -> tuple[int, ...]:
    """Token ids of the prompt. Raises `InputError` where it does not fit or the template refuses it.

    `form` is how the model writes calls, None where it has no tools. With a sliding window the oldest turns
    are dropped until it fits; a system message stays.
    """
    messages = [template_message(message) for message in request.messages]
    offered = [tool.model_dump(exclude_none=True) for tool in tools]
    variables: dict[str, Any] = {"tools": offered} if offered else {}

    def encode() -> list[int]:
        written = messages if form is None else form.messages(messages, offered)
        return model.template.encode(written, **variables)

    prompt = encode()
    if request.context_overflow != "sliding_window":
        return tuple(prompt)
    limit = room_for_prompt(model, request.max_completion_tokens or request.max_tokens)
    while len(prompt) > limit:
        dropped = drop_oldest(messages)
        if dropped is None:
            raise ContextError(f"the last message alone needs {len(prompt)} tokens, {limit} are left for it")
        messages = dropped
        prompt = encode()
    return tuple(prompt)


def room_for_prompt(model: Model, max_tokens: int | None) -> int:
    """Tokens of a prompt that leave room for the answer in the context."""
    answer = model.context // ANSWER_SHARE if max_tokens is None else max_tokens
    return model.context - max(1, min(answer, model.context // 2))


def drop_oldest(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Messages without the oldest turn: the first user's message and what follows until the next one."""
    head = [message for message in messages[:1] if message["role"] == "system"]
    turns = messages[len(head) :]
    rest = next((i for i, message in enumerate(turns) if i > 0 and message["role"] == "user"), None)
    return None if rest is None else [*head, *turns[rest:]]


def template_message(message: Message) -> dict[str, Any]:
    """A message as chat templates take it: text as content, arguments of calls as objects."""
    role = "system" if message.role == "developer" else message.role
    result: dict[str, Any] = {"role": role, "content": content_text(message.content)}
    if isinstance(message, AssistantMessage):
        if message.tool_calls:
            result["tool_calls"] = [_call(call) for call in message.tool_calls]
        return result
    if message.role == "tool":
        result["tool_call_id"] = message.tool_call_id
    return result


def content_text(content: Content | None) -> str:
    """The text of a message's content, its parts joined."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text for part in content)


def _call(call: MessageToolCall) -> dict[str, Any]:
    try:
        arguments = json.loads(call.function.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = call.function.arguments
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.function.name, "arguments": arguments},
    }
