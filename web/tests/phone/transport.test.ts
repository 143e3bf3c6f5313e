import { beforeEach, describe, expect, it } from 'vitest';
import { type ChatEvent, type ChatRequest, TransportError } from '../../src/transport';
import { PACKAGE, type Phone, phone, refusal } from './app';

const DONE = { event: 'done', reason: 'stop', prompt_tokens: 5, reused_tokens: 2, generated_tokens: 3 };
const TIMES = { prefill_s: 0.5, decode_s: 1, prefill_tps: 10, decode_tps: 3 };
const HELLO: ChatRequest = { messages: [{ role: 'user', content: 'Hello' }] };

async function all(
  made: Phone,
  request = HELLO,
  signal = new AbortController().signal,
): Promise<ChatEvent[]> {
  const events: ChatEvent[] = [];
  for await (const event of made.transport.chat(request, signal)) events.push(event);
  return events;
}

function textOf(events: ChatEvent[]): string {
  return events.map((event) => (event.kind === 'text' ? event.text : '')).join('');
}

/** Has the engine answer with a text, and then as `end` says. */
function answering(made: Phone, text: string, end: (id: unknown) => void): void {
  const others = made.app.engine;
  made.app.engine = (request) => {
    if (request.command !== 'generate') return others(request);
    const { id } = request;
    for (const character of text) made.app.say({ event: 'token', id, token: character.charCodeAt(0) });
    end(id);
  };
}

function finishing(made: Phone, text: string): void {
  answering(made, text, (id) => made.app.say({ ...DONE, ...TIMES, id }));
}

const generated = (made: Phone) => made.app.lines.filter(({ command }) => command === 'generate');

describe('PhoneTransport', () => {
  let made: Phone;
  beforeEach(async () => {
    localStorage.clear();
    made = phone({
      'generation.json': '{"do_sample":true,"temperature":0.8,"eos_token_ids":[2],"stop":["##"]}',
    });
    await made.models.open();
    await made.models.start({ ...PACKAGE });
  });

  it('answers with text, the end, and the engine’s figures', async () => {
    finishing(made, 'Hi!');
    const events = await all(made);
    expect(textOf(events)).toBe('Hi!');
    expect(events.slice(-3)).toEqual([
      { kind: 'finish', reason: 'stop' },
      { kind: 'usage', usage: { promptTokens: 5, completionTokens: 3 } },
      {
        kind: 'timings',
        timings: { reusedTokens: 2, prefillSeconds: 0.5, decodeSeconds: 1, tokensPerSecond: 3 },
      },
    ]);
  });

  it('asks with the model’s defaults, and the request’s on top', async () => {
    finishing(made, 'Hi!');
    await all(made, { ...HELLO, top_p: 0.5, seed: 7, max_tokens: 9 });
    expect(generated(made)[0]).toMatchObject({
      tokens: [72, 101, 108, 108, 111],
      temperature: 0.8,
      top_p: 0.5,
      seed: 7,
      max_tokens: 9,
      end_tokens: [2],
      ignore_end: false,
    });
    expect(generated(made)[0]).not.toHaveProperty('stop');
  });

  it('leaves the whole context to an answer without a limit', async () => {
    finishing(made, 'Hi!');
    await all(made);
    expect(generated(made)[0]?.max_tokens).toBe(64 - 5);
  });

  it('ends at a stop string, shows nothing of it, and stops the engine', async () => {
    answering(made, 'one##two', () => undefined);
    const others = made.app.engine;
    made.app.engine = (request) => {
      if (request.command !== 'stop') return others(request);
      made.app.say({ ...DONE, ...TIMES, reason: 'interrupted', generated_tokens: 8, id: request.id });
    };
    const events = await all(made);
    expect(textOf(events)).toBe('one');
    expect(events).toContainEqual({ kind: 'finish', reason: 'stop' });
    expect(events).toContainEqual({ kind: 'usage', usage: { promptTokens: 5, completionTokens: 5 } });
  });

  it('shows the beginning of a stop string that was none', async () => {
    finishing(made, 'a#');
    expect(textOf(await all(made))).toBe('a#');
  });

  it('stops the engine when the reader stops, and ends as a fetch does', async () => {
    const stopper = new AbortController();
    answering(made, 'part', () => stopper.abort());
    const others = made.app.engine;
    made.app.engine = (request) => {
      if (request.command !== 'stop') return others(request);
      made.app.say({ ...DONE, ...TIMES, reason: 'interrupted', id: request.id });
    };
    const error = await all(made, HELLO, stopper.signal).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ name: 'AbortError' });
    expect(made.app.lines.at(-1)).toEqual({ command: 'stop', id: generated(made)[0]?.id });
  });

  it('says what the engine refuses', async () => {
    answering(made, '', (id) => made.app.say({ event: 'error', id, code: 'context', message: 'no room' }));
    await expect(all(made)).rejects.toMatchObject({ kind: 'refused', message: 'no room' });
  });

  it('says that the engine has ended, in the middle of an answer or before it', async () => {
    answering(made, 'part', () => made.app.event('engine.exit', { code: 1, expected: false }));
    await expect(all(made)).rejects.toMatchObject({ kind: 'broken' });
    made.app.answers['engine.send'] = refusal('not_running');
    await expect(all(made)).rejects.toMatchObject({ kind: 'broken' });
  });

  it('passes over lines that are cut off, and answers to others', async () => {
    answering(made, 'Hi', (id) => {
      made.app.event('engine.line', { line: '{"event":"tok' });
      made.app.say({ event: 'token', id: 'answer-of-another-page', token: 65 });
      made.app.say({ ...DONE, ...TIMES, id });
    });
    expect(textOf(await all(made))).toBe('Hi');
  });

  it('refuses a conversation that fills the context', async () => {
    const long = { messages: [{ role: 'user' as const, content: 'x'.repeat(64) }] };
    const error = await all(made, long).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(TransportError);
    expect(error).toMatchObject({ kind: 'refused', message: expect.stringContaining('64') });
    expect(generated(made)).toEqual([]);
  });

  it('refuses without a model', async () => {
    await made.models.leave();
    await expect(all(made)).rejects.toMatchObject({ kind: 'refused' });
    await expect(made.transport.status()).rejects.toMatchObject({ kind: 'unreachable' });
  });

  it('asks the engine for figures after a start and after each answer, not every time', async () => {
    const asked = () => made.app.lines.filter(({ command }) => command === 'stats').length;
    for (let times = 0; times < 3; times++) await made.transport.status();
    expect(asked()).toBe(1);
    finishing(made, 'Hi!');
    await all(made);
    for (let times = 0; times < 3; times++) expect((await made.transport.status()).memory.rss).toBe(5);
    expect(asked()).toBe(2);
  });

  it('shows which blocks are read from storage', async () => {
    const loaded = { context: 64, threads: 2, blocks: 4, weight_bytes: 30, streamed_bytes: 10 };
    made.app.answers['engine.start'] = () => ({ plan: {}, loaded });
    await made.models.start({ ...PACKAGE });
    const { blocks } = await made.transport.status();
    expect(blocks.map(({ place }) => place)).toEqual(['cpu', 'cpu', 'cpu', 'disk']);
  });
});
