"""Tool calls: forms, grammars, and finding calls in a stream."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from generate.tiny_models import VOCAB
from pocketglm.errors import InputError
from pocketglm.generate.model import load
from pocketglm.serve.grammar import GrammarCompiler
from pocketglm.serve.tool_calls import FORMATS, Tool, ToolCall, ToolFormat, tool_format
from pocketglm.serve.tool_watch import ToolWatch

CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = [Tool("weather", CITY), Tool("time", CITY)]
HERMES, LLAMA, GLM4 = FORMATS
WRITTEN = {
    HERMES: '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>',
    LLAMA: '{"name": "weather", "parameters": {"city": "Rome"}}',
    GLM4: 'weather\n{"city": "Rome"}',
}
CALL = ToolCall("weather", '{"city": "Rome"}')


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_a_written_call_is_found(form: ToolFormat) -> None:
    assert form.find(WRITTEN[form], TOOLS) == ("", [CALL])


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@pytest.mark.parametrize(
    "text", ["It rains.", '{"name": "bomb", "parameters": {}}', "weather", "<tool_call>{"]
)
def test_other_text_is_no_call(form: ToolFormat, text: str) -> None:
    assert form.find(text, TOOLS) == (text, [])


def test_text_around_calls_stays() -> None:
    text = f"Let me see. {WRITTEN[HERMES]}{WRITTEN[HERMES]} Done."
    assert HERMES.find(text, TOOLS) == ("Let me see.  Done.", [CALL, CALL])


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


def test_without_parallel_calls_there_is_one() -> None:
    watch = ToolWatch(HERMES, TOOLS, parallel=False)
    watch.feed(WRITTEN[HERMES] * 2)
    assert watch.finish()[1] == [CALL]


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_a_grammar_makes_calls(form: ToolFormat, causal_path: Path) -> None:
    with load(causal_path, "reference") as model:
        compiler = GrammarCompiler(model.tokenizer, VOCAB, model.defaults.end_tokens)
        start = compiler.from_lark(form.lark(TOOLS, parallel=False))
        found = set()
        for seed in range(12):
            random, grammar, ids = np.random.default_rng(seed), start.fork(), list[int]()
            while not grammar.finished:
                masked = grammar.masked(np.zeros(VOCAB, np.float32))
                token = int(random.choice(np.flatnonzero(np.isfinite(masked))))
                if token in model.defaults.end_tokens:
                    break
                grammar.accept(token)
                ids.append(token)
            rest, (call,) = form.find(model.tokenizer.decode(ids), TOOLS)
            assert rest == ""
            assert json.loads(call.arguments)["city"] in ("Rome", "Oslo")
            found.add(call.name)
        assert found == {"weather", "time"}


def test_forms_are_told_by_the_template() -> None:
    assert tool_format("{{ tools }} <tool_call>") is HERMES
    assert tool_format('{{ tools }} ipython "parameters"') is LLAMA
    assert tool_format("{{ tools }} <|observation|>") is GLM4
    for template in (None, "{{ messages }} <tool_call>"):
        with pytest.raises(InputError, match="takes no tools"):
            tool_format(template)
    with pytest.raises(InputError, match="not known here"):
        tool_format("{{ tools }} [CALL]")
