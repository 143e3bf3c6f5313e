from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pocketglm.architecture.templates import load_template

Message = dict[str, str]
HISTORY: list[Message] = [
    {"role": "user", "content": "你好"},
    {"role": "assistant", "content": "你好！"},
    {"role": "user", "content": "晚上睡不着怎么办"},
]


class TemplateError(Exception):
    pass


def raise_exception(message: str) -> None:
    raise TemplateError(message)


def to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def render(name: str, messages: list[Message], add_generation_prompt: bool = True, **variables: Any) -> str:
    """As the transformers library renders a template."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    environment.filters["tojson"] = to_json
    template = environment.from_string(load_template(name))
    return template.render(messages=messages, add_generation_prompt=add_generation_prompt, **variables)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chatglm", "你好[gMASK]<sop>"),
        ("chatglm2", "[gMASK]<sop>[Round 1]\n\n问：你好\n\n答："),
        ("chatglm3", "[gMASK]<sop><|user|>\n 你好<|assistant|>"),
        ("glm4_remote", "[gMASK]<sop><|user|>\n你好<|assistant|>"),
    ],
)
def test_first_question(name: str, expected: str) -> None:
    assert render(name, HISTORY[:1]) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chatglm", "[Round 0]\n问：你好\n答：你好！\n[Round 1]\n问：晚上睡不着怎么办\n答：[gMASK]<sop>"),
        (
            "chatglm2",
            "[gMASK]<sop>[Round 1]\n\n问：你好\n\n答：你好！\n\n[Round 2]\n\n问：晚上睡不着怎么办\n\n答：",
        ),
        (
            "chatglm3",
            "[gMASK]<sop><|user|>\n 你好<|assistant|>\n 你好！<|user|>\n 晚上睡不着怎么办<|assistant|>",
        ),
        (
            "glm4_remote",
            "[gMASK]<sop><|user|>\n你好<|assistant|>\n你好！<|user|>\n晚上睡不着怎么办<|assistant|>",
        ),
    ],
)
def test_later_rounds(name: str, expected: str) -> None:
    assert render(name, HISTORY) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chatglm", "用中文回答。\n你好[gMASK]<sop>"),
        ("chatglm2", "[gMASK]<sop>[Round 1]\n\n问：用中文回答。\n你好\n\n答："),
        ("chatglm3", "[gMASK]<sop><|system|>\n 用中文回答。<|user|>\n 你好<|assistant|>"),
        ("glm4_remote", "[gMASK]<sop><|system|>\n用中文回答。<|user|>\n你好<|assistant|>"),
    ],
)
def test_system_message(name: str, expected: str) -> None:
    assert render(name, [{"role": "system", "content": "用中文回答。"}, HISTORY[0]]) == expected


def test_text_is_kept_to_the_last_blank() -> None:
    text = "  def f():\n\n\treturn '{{ 1 }}'  \n"
    messages = [{"role": "user", "content": text}]
    assert render("chatglm", messages) == f"{text}[gMASK]<sop>"
    assert render("chatglm2", messages) == f"[gMASK]<sop>[Round 1]\n\n问：{text}\n\n答："
    assert render("chatglm3", messages) == f"[gMASK]<sop><|user|>\n {text}<|assistant|>"
    assert render("glm4_remote", messages) == f"[gMASK]<sop><|user|>\n{text}<|assistant|>"


@pytest.mark.parametrize("name", ["chatglm3", "glm4_remote"])
def test_tool_calls_and_their_results(name: str) -> None:
    blank = " " if name == "chatglm3" else ""
    messages = [
        {"role": "assistant", "metadata": "get_weather", "content": "{}"},
        {"role": "tool", "content": "22"},
        {"role": "observation", "content": ""},
    ]
    assert render(name, messages, add_generation_prompt=False) == (
        f"[gMASK]<sop><|assistant|>get_weather\n{blank}{{}}<|observation|>\n{blank}22<|observation|>\n"
    )


TOOL = {"type": "function", "function": {"name": "weather", "description": "天气 <b>", "parameters": {}}}
IN_LINES = '{\n    "name": "weather",\n    "description": "天气 <b>",\n    "parameters": {}\n}'


@pytest.mark.parametrize("system", ["", "用中文回答。"])
def test_tools_of_chatglm3_open_the_system_message(system: str) -> None:
    messages = [*([{"role": "system", "content": system}] if system else []), HISTORY[0]]
    listed = "[\n    " + IN_LINES.replace("\n", "\n    ") + "\n]"
    assert render("chatglm3", messages, tools=[TOOL]) == (
        f"[gMASK]<sop><|system|>\n {system}{system and chr(10)}Answer the following questions as best as you "
        f"can. You have access to the following tools:\n{listed}<|user|>\n 你好<|assistant|>"
    )


def test_tools_of_glm4_have_a_system_message_of_their_own() -> None:
    messages = [{"role": "system", "content": "用中文回答。"}, HISTORY[0]]
    assert render("glm4_remote", messages, tools=[TOOL]) == (
        "[gMASK]<sop><|system|>\n你是一个名为 ChatGLM 的人工智能助手。你是基于智谱AI训练的语言模型 GLM-4 模型"
        "开发的，你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具\n\n## weather\n\n"
        f"{IN_LINES}\n在调用上述函数时，请使用 Json 格式表示调用的参数。"
        "<|system|>\n用中文回答。<|user|>\n你好<|assistant|>"
    )


@pytest.mark.parametrize("name", ["chatglm", "chatglm2", "chatglm3", "glm4_remote"])
def test_unknown_roles_are_refused(name: str) -> None:
    with pytest.raises(TemplateError, match="wizard"):
        render(name, [{"role": "wizard", "content": "?"}])


@pytest.mark.parametrize("text", ["你好", "Be  brief.\n", " two blanks", "\n\ncode", "▁", "12\t3"])
def test_the_blank_in_chatglm3_stands_for_a_text_encoded_alone(shared_data: Path, text: str) -> None:
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(shared_data / "chatglm3-tokenizer.model"))
    assert model.encode("\n") == [30910, 13]
    prompt = render("chatglm3", [{"role": "user", "content": text}])
    run = prompt.removeprefix("[gMASK]<sop><|user|>").removesuffix("<|assistant|>")
    assert model.encode(run) == model.encode("\n") + model.encode(text)
