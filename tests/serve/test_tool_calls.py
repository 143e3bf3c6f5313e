"""Tool calls: forms, grammars, and finding calls in a stream."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from generate.tiny_models import VOCAB
from pocketglm.architecture.templates import load_template
from pocketglm.errors import InputError
from pocketglm.generate.model import load
from pocketglm.serve.grammar import GrammarCompiler
from pocketglm.serve.tool_calls import Tool, ToolCall, ToolFormat
from pocketglm.serve.tool_formats import FORMATS, tool_format
from pocketglm.serve.tool_watch import ToolWatch

CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = [Tool("weather", CITY), Tool("time", CITY)]
HERMES, LLAMA, CHATGLM3, GLM4 = FORMATS
WRITTEN = {
    HERMES: '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>',
    LLAMA: '{"name": "weather", "parameters": {"city": "Rome"}}',
    CHATGLM3: "weather\n ```python\ntool_call(city='Rome')\n```",
    GLM4: 'weather\n{"city": "Rome"}',
}
CALL = ToolCall("weather", '{"city": "Rome"}')


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_a_written_call_is_found(form: ToolFormat) -> None:
    assert form.read(WRITTEN[form], TOOLS, ended=True) == ("", [CALL])


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@pytest.mark.parametrize(
    "text", ["It rains.", '{"name": "bomb", "parameters": {}}', "weather", "<tool_call>{"]
)
def test_other_text_is_no_call(form: ToolFormat, text: str) -> None:
    assert form.read(text, TOOLS, ended=True) == (text, [])


def test_text_around_calls_stays() -> None:
    text = f"Let me see. {WRITTEN[HERMES]}{WRITTEN[HERMES]} Done."
    assert HERMES.read(text, TOOLS, ended=True) == ("Let me see.  Done.", [CALL, CALL])


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_a_stream_shows_text_and_hides_calls(form: ToolFormat) -> None:
    watch = ToolWatch(form, TOOLS, parallel=True)
    assert "".join(watch.feed(character) for character in WRITTEN[form]) == ""
    assert watch.finish() == ("", [CALL])
    watch = ToolWatch(form, TOOLS, parallel=True)
    text = "It < rains {a lot}; weather\nis so."
    shown = "".join(watch.feed(character) for character in text)
    rest, calls = watch.finish()
    assert (shown + rest, calls) == (text, [])


@pytest.mark.parametrize("form", [GLM4, CHATGLM3], ids=lambda form: form.name)
def test_the_family_says_something_and_then_calls(form: ToolFormat) -> None:
    text = f"\n Let me see.<|assistant|>{WRITTEN[form]}"
    watch = ToolWatch(form, TOOLS, parallel=True)
    assert "".join(watch.feed(character) for character in text) == "Let me see."
    assert watch.finish() == ("", [CALL])
    watch = ToolWatch(form, TOOLS, parallel=True)
    assert watch.feed("\n One.<|assistant|>\nTwo <|assist") == "One.\nTwo "
    assert watch.finish() == ("<|assist", [])
    assert form.read(f"{WRITTEN[form]}<|assistant|>weather\nunknown", TOOLS, ended=True) == (
        "weather\nunknown",
        [CALL],
    )


@pytest.mark.parametrize("form", [HERMES, LLAMA, GLM4], ids=lambda form: form.name)
def test_what_is_no_json_is_no_call(form: ToolFormat) -> None:
    text = WRITTEN[form].replace('"Rome"', "NaN")
    assert form.read(text, TOOLS, ended=True) == (text, [])


def test_half_a_surrogate_pair_stays_an_escape() -> None:
    text = WRITTEN[HERMES].replace("Rome", "\\ud83d")
    assert HERMES.read(text, TOOLS, ended=True)[1] == [ToolCall("weather", '{"city": "\\ud83d"}')]


def test_conversations_in_the_fields_that_the_family_reads() -> None:
    function = {"name": "weather", "arguments": {"city": "Rome"}}
    talk = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "So.", "tool_calls": [{"function": function}]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
    written = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "So."},
        {"role": "assistant", "metadata": "weather", "content": '{"city": "Rome"}'},
        {"role": "observation", "content": "rain"},
    ]
    assert GLM4.messages(talk, []) == written
    block = "```python\ntool_call(city='Rome')\n```"
    assert CHATGLM3.messages(talk, [])[2]["content"] == block
    assert HERMES.messages(talk, []) == talk
    in_message = tool_format("{{ item['tools'] }} <|observation|>")
    system = {"role": "system", "content": "", "tools": ["t"]}
    assert in_message.messages(talk, ["t"]) == [system, *written]
    assert in_message.messages([{**system, "content": "s"}], ["t"]) == [{**system, "content": "s"}]


def test_without_parallel_calls_there_is_one() -> None:
    watch = ToolWatch(HERMES, TOOLS, parallel=False)
    watch.feed(WRITTEN[HERMES] * 2)
    assert watch.finish()[1] == [CALL]


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_a_grammar_makes_calls(form: ToolFormat, causal_path: Path) -> None:
    with load(causal_path, "reference") as model:
        compiler = GrammarCompiler(model.tokenizer, VOCAB, model.defaults.end_tokens)
        start = compiler.from_lark(form.lark(TOOLS, parallel=False))
        found = set[str]()
        for seed in range(12):
            random, grammar, ids = np.random.default_rng(seed), start.fork(), list[int]()
            while not grammar.finished:
                masked = grammar.masked(np.zeros(VOCAB, np.float32))
                token = int(random.choice(np.flatnonzero(np.isfinite(masked))))
                if token in model.defaults.end_tokens:
                    break
                grammar.accept(token)
                ids.append(token)
            rest, (call,) = form.read(model.tokenizer.decode(ids), TOOLS, ended=True)
            assert rest == ""
            assert json.loads(call.arguments)["city"] in ("Rome", "Oslo")
            found.add(call.name)
        assert found == {"weather", "time"}


def test_forms_are_told_by_the_template() -> None:
    assert tool_format("{{ tools }} <tool_call>") is HERMES
    assert tool_format('{{ tools }} ipython "parameters"') is LLAMA
    assert tool_format("{{ tools }} <|observation|>") is GLM4
    assert tool_format(load_template("chatglm3")) is CHATGLM3
    assert tool_format(load_template("glm4_remote")) is GLM4
    without = [load_template("chatglm"), load_template("chatglm2")]
    for template in (None, "{{ messages }} <tool_call>", *without):
        with pytest.raises(InputError, match="takes no tools"):
            tool_format(template)
    with pytest.raises(InputError, match="not known here"):
        tool_format("{{ tools }} [CALL]")
