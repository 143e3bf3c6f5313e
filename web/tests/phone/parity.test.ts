// The same ids, texts and prompts as Python, on the cases that tests/web/phone/parity.py writes.

import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ChatTemplate } from '../../src/phone/prompt/template';
import { Tokenizer } from '../../src/phone/prompt/tokenizer';
import type { ChatMessage } from '../../src/transport';

interface TokenizerCase {
  name: string;
  json: string;
  vocab_size: number;
  texts: string[];
  plain: number[][];
  special: number[][];
  decoded: string[];
  noise: [number[], string][];
  pieces: string[];
}

interface TemplateCase {
  name: string;
  source: string;
  tokenizer: string;
  variables: Record<string, unknown>;
  now: [number, number, number, number, number, number];
  cases: { messages: ChatMessage[]; text: string | null; ids: number[] | null }[];
}

const path = process.env.POCKETGLM_PARITY;
const cases: { tokenizers: TokenizerCase[]; templates: TemplateCase[] } =
  path === undefined ? { tokenizers: [], templates: [] } : JSON.parse(readFileSync(path, 'utf-8'));

// By itself (`npm test`) there are no cases: pytest writes them and starts this file.
describe.skipIf(path === undefined)('as Python', () => {
  it.each(cases.tokenizers)('tokenizer $name', (entry) => {
    const tokenizer = new Tokenizer(entry.json);
    expect(tokenizer.vocabSize).toBe(entry.vocab_size);
    for (const [index, text] of entry.texts.entries()) {
      expect({ text, ids: tokenizer.encode(text) }).toEqual({ text, ids: entry.plain[index] });
      expect({ text, ids: tokenizer.encode(text, true) }).toEqual({ text, ids: entry.special[index] });
      expect(tokenizer.decode(entry.plain[index] ?? [])).toBe(entry.decoded[index]);
    }
    for (const [ids, text] of entry.noise) expect(tokenizer.decode(ids)).toBe(text);
    const stream = tokenizer.stream();
    const last = entry.plain.at(-1) ?? [];
    expect([...last.map((id) => stream.push(id)), stream.finish()]).toEqual(entry.pieces);
  });

  it.each(cases.templates)('template $name', (entry) => {
    const template = new ChatTemplate(
      entry.source,
      new Tokenizer(entry.tokenizer),
      () => new Date(...entry.now),
    );
    for (const { messages, text, ids } of entry.cases) {
      expect(orNull(() => template.render(messages, entry.variables))).toBe(text);
      if (Object.keys(entry.variables).length === 0)
        expect(orNull(() => template.encode(messages))).toEqual(ids);
    }
  });
});

function orNull<T>(make: () => T): T | null {
  try {
    return make();
  } catch {
    return null;
  }
}
