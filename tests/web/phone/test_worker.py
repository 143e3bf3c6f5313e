"""The built worker in the browser: ids, prompts and streamed text as Python makes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pocketglm.architecture.templates import load_template
from pocketglm.checkpoint import open_checkpoint
from pocketglm.convert.demo_chatglm import write_demo_checkpoint
from web.phone.page_host import BRIDGE, PAGE, need_page
from web.phone.parity import large_text, template_case, tokenizer_case
from web.phone.scripted_host import ScriptedHost
from web.phone.test_parity import CHATGLM_SPECIAL, SMOLLM2_SPECIAL, chatglm3, converted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from web.conftest import OpenPage

# Starts the worker, loads a package's texts into it and returns what it answers to each request.
ASK = """async ([address, tokenizer, template, requests]) => {
  const worker = new Worker(address, { type: 'module' });
  let next = 1;
  const ask = (request) => new Promise((resolve) => {
    const id = next++;
    const take = ({ data }) => {
      if (data.id !== id) return;
      worker.removeEventListener('message', take);
      resolve('result' in data ? data.result : null);
    };
    worker.addEventListener('message', take);
    worker.postMessage({ ...request, id });
  });
  const size = await ask({ do: 'load', tokenizer, template });
  const answers = [];
  for (const request of requests) answers.push(await ask(request));
  worker.terminate();
  return [size, answers];
}"""
CONTENT = "{{ messages[0].content }}"


@pytest.fixture
def page(open_page: OpenPage) -> Iterator[Page]:
    need_page()
    host = ScriptedHost()
    yield open_page(host.address, init_script=BRIDGE)
    host.close()


def ask(page: Page, tokenizer: str, template: str, requests: list[dict[str, Any]]) -> tuple[int, list[Any]]:
    (worker,) = (PAGE / "assets").glob("worker-*.js")
    size, answers = page.evaluate(ASK, [f"assets/{worker.name}", tokenizer, template, requests])
    return size, answers


def check(page: Page, tokenizer: str, template: str, special: tuple[str, ...]) -> None:
    text = large_text(special)
    case = tokenizer_case("large", tokenizer, [text])
    requests: list[dict[str, Any]] = [
        {"do": "encode", "messages": [{"role": "user", "content": text}]},
        {"do": "begin", "stream": 1},
        {"do": "push", "stream": 1, "tokens": case["plain"][0]},
        {"do": "finish", "stream": 1},
    ]
    size, (ids, _, pieces, rest) = ask(page, tokenizer, CONTENT, requests)
    assert size == case["vocab_size"]
    assert ids == case["plain"][0]
    assert [*pieces, rest] == case["pieces"]
    cases = template_case("own", template, tokenizer)["cases"]
    _, prompts = ask(page, tokenizer, template, [{"do": "encode", "messages": c["messages"]} for c in cases])
    assert prompts == [c["ids"] for c in cases]


def test_smollm2(page: Page, smollm2: Path) -> None:
    with open_checkpoint(smollm2) as checkpoint:
        template = checkpoint.metadata["tokenizer.chat_template"]
    check(page, converted(smollm2), template, SMOLLM2_SPECIAL)


def test_chatglm3(page: Page, shared_data: Path) -> None:
    check(page, chatglm3(shared_data), load_template("chatglm3"), CHATGLM_SPECIAL)


def test_chatglm_6b_in_small(page: Page, tmp_path: Path) -> None:
    tokenizer = converted(write_demo_checkpoint(tmp_path / "demo"))
    check(page, tokenizer, load_template("chatglm"), CHATGLM_SPECIAL)
