import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { readDefaults, roomFor, settingsFor } from '../../src/phone/answerDefaults';
import { PromptProblem } from '../../src/phone/prompt/problem';
import { Prompter } from '../../src/phone/prompt/prompter';
import { SandboxedTemplate } from '../../src/phone/prompt/sandbox';
import { StopMatcher } from '../../src/phone/prompt/stopping';
import { Tokenizer } from '../../src/phone/prompt/tokenizer';

describe('answer defaults', () => {
  it('are greedy without a file, and where the file does not sample', () => {
    expect(readDefaults(undefined).numbers).toEqual({ temperature: 0 });
    expect(readDefaults('{"temperature":0.9}').numbers).toEqual({ temperature: 0 });
    expect(readDefaults('{"do_sample":true,"temperature":0.9}').numbers).toEqual({ temperature: 0.9 });
  });

  it.each([
    ['[', 'JSON'],
    ['{"top_p":"x"}', 'top_p'],
    ['{"eos_token_ids":[1,-2]}', 'eos_token_ids'],
    ['{"eos_token_ids":5}', 'eos_token_ids'],
    ['{"stop":[""]}', 'stop'],
  ])('refuse %s', (json, said) => {
    expect(() => readDefaults(json)).toThrow(PromptProblem);
    expect(() => readDefaults(json)).toThrow(said);
  });

  it('limit prompt and answer together by max_length, which max_tokens overrules', () => {
    const defaults = readDefaults('{"max_length":50,"max_new_tokens":30}');
    expect(settingsFor(defaults, {}, 10, 100).request.max_tokens).toBe(30);
    expect(settingsFor(defaults, {}, 40, 100).request.max_tokens).toBe(10);
    expect(settingsFor(defaults, { max_tokens: 70 }, 40, 100).request.max_tokens).toBe(60);
    expect(roomFor(defaults, {}, 100)).toBe(50);
    expect(roomFor(defaults, { max_tokens: 1 }, 100)).toBe(100);
  });
});

describe('StopMatcher', () => {
  it('holds back what may become a stop string', () => {
    const matcher = new StopMatcher(['###', 'END']);
    expect([...'a#E#b##EN'].map((piece) => matcher.feed(piece)).join('')).toBe('a#E#b##');
    expect(matcher.flush()).toBe('EN');
  });

  it('takes the first of several, and shows nothing after it', () => {
    const matcher = new StopMatcher(['two', 'one']);
    expect(matcher.feed('zero one two')).toBe('zero ');
    expect(matcher.matched).toBe(true);
    expect(matcher.feed('more') + matcher.flush()).toBe('');
  });
});

describe('templates', () => {
  const render = (source: string, messages: unknown[] = []) =>
    new SandboxedTemplate(source).render({ messages });
  const problemOf = (source: string) => {
    try {
      return render(source);
    } catch (error) {
      return error instanceof PromptProblem ? error.kind : error;
    }
  };

  it('blame the messages for what the template refuses, the package for the rest', () => {
    expect(problemOf("{{ raise_exception('no') }}")).toBe('messages');
    expect(problemOf('{% for x in range(1000000000) %}x{% endfor %}')).toBe('package');
    expect(problemOf('{% for x in range(3000) %}{% for y in range(3000) %}{% endfor %}{% endfor %}')).toBe(
      'package',
    );
    expect(problemOf(`{{ ${'('.repeat(50_000)}1${')'.repeat(50_000)} }}`)).toBe('package');
    expect(
      problemOf(
        "{% set ns = namespace(t='xxxxxxxxxx') %}{% for i in range(40) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
      ),
    ).toBe('package');
    expect(problemOf('{% if %}')).toBe('package');
  });

  it('keep what a loop has written before it breaks or continues', () => {
    const source =
      '{% for i in range(5) %}{{ i }}{% if i == 1 %}a{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}.{% endfor %}!';
    expect(render(source)).toBe('0.1a2.3!');
  });

  it('write values as Python does, or say that they cannot', () => {
    expect(render("{{ true }} {{ none }} {{ 1 == 2 }} {{ 'a' ~ false }} {{ 1.0 }}{% set x = true %}")).toBe(
      'True None False aFalse 1.0',
    );
    expect(render("{{ 'xxaxyx'.strip('x') }} {{ '  a'.strip() }} {{ 'aab'.lstrip('ba') }}|")).toBe('axy a |');
    for (const source of ['{{ [1] }}', '{{ {"a": 1} }}', "{{ 'a' ~ [1] }}", "{{ 'a'.strip(1) }}"])
      expect(problemOf(source)).toBe('messages');
    expect(render('{{ [1, true] | tojson }}')).toBe('[1, true]');
  });

  it('do not reach what is around them', () => {
    for (const name of ['constructor', '__proto__', 'globalThis', 'fetch', 'self'])
      expect(render(`{{ ${name} is defined }}`)).toBe('False');
    expect(problemOf("{{ ''.constructor.constructor('return 1')() }}")).toBe('messages');
  });
});

describe('Tokenizer', () => {
  it.each([
    ['{', 'JSON'],
    ['[]', 'an object'],
    ['{"model":{"type":"WordPiece"}}', 'WordPiece'],
    ['{"model":{"type":"BPE","vocab":{"a":-1},"merges":[]},"decoder":{"type":"Fuse"}}', 'token ids'],
    ['{"model":{"type":"BPE","vocab":{"a":0},"merges":["a b c"]},"decoder":{"type":"Fuse"}}', 'pairs'],
    ['{"model":{"type":"BPE","vocab":{"a":0},"merges":[]},"decoder":{"type":"CTC"}}', 'CTC'],
    ['{"model":{"type":"BPE","vocab":{},"merges":[]},"decoder":{"type":"Fuse"}}', 'no tokens'],
    ['{"model":{"type":"Unigram","vocab":[["a"]]},"decoder":{"type":"Fuse"}}', 'pieces'],
  ])('refuses %s', (json, said) => {
    expect(() => new Tokenizer(json)).toThrow(PromptProblem);
    expect(() => new Tokenizer(json)).toThrow(said);
  });
});

class FakeWorker {
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onerror: ((event: { message: string }) => void) | null = null;
  ended = false;
  readonly requests: { id: number; do: string }[] = [];

  postMessage(request: { id: number; do: string }): void {
    this.requests.push(request);
  }

  terminate(): void {
    this.ended = true;
  }

  answer(result: unknown): void {
    this.onmessage?.({ data: { id: this.requests.at(-1)?.id, result } });
  }
}

describe('Prompter', () => {
  const workers: FakeWorker[] = [];
  let prompter: Prompter;
  beforeEach(() => {
    vi.useFakeTimers();
    workers.length = 0;
    prompter = new Prompter(() => {
      workers.push(new FakeWorker());
      return workers.at(-1) as unknown as Worker;
    }, 1000);
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  it('answers with what the worker says', async () => {
    const loaded = prompter.load('{}', undefined);
    workers[0]?.answer(300);
    expect(await loaded).toBe(300);
    const failed = prompter.encode([]);
    const id = workers[0]?.requests.at(-1)?.id;
    workers[0]?.onmessage?.({ data: { id, problem: { kind: 'messages', message: 'no' } } });
    await expect(failed).rejects.toMatchObject({ kind: 'messages', message: 'no' });
  });

  it('ends a worker that takes too long', async () => {
    const asked = prompter.encode([]);
    const refused = expect(asked).rejects.toBeInstanceOf(PromptProblem);
    vi.advanceTimersByTime(1001);
    await refused;
    expect(workers[0]?.ended).toBe(true);
  });

  it('has a worker of its own for each package', async () => {
    const first = prompter.load('{}', undefined);
    const refused = expect(first).rejects.toBeInstanceOf(PromptProblem);
    const second = prompter.load('{}', undefined);
    await refused;
    expect(workers.map(({ ended }) => ended)).toEqual([true, false]);
    workers[1]?.answer(1);
    expect(await second).toBe(1);
  });

  it('says what ended the worker', async () => {
    const asked = prompter.encode([]);
    workers[0]?.onerror?.({ message: 'out of memory' });
    await expect(asked).rejects.toThrow('out of memory');
  });
});
