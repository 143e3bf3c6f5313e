import { afterEach, describe, expect, it, vi } from 'vitest';
import { type ChatEvent, eventsOf, HttpTransport, statusOf, TransportError } from '../src/transport';

const STATUS = { model: 'm', context_length: 2048, blocks: [{ index: 0, engine: 'native', place: 'ram' }] };

function answer(body: string, init?: ResponseInit): void {
  vi.stubGlobal('fetch', async (url: URL) =>
    url.pathname.endsWith('/status') ? Response.json(STATUS) : new Response(body, init),
  );
}

async function chat(): Promise<ChatEvent[]> {
  const events: ChatEvent[] = [];
  const request = { messages: [{ role: 'user' as const, content: 'a' }] };
  for await (const event of new HttpTransport().chat(request, new AbortController().signal))
    events.push(event);
  return events;
}

afterEach(() => {
  vi.unstubAllGlobals();
  sessionStorage.clear();
});

describe('HttpTransport', () => {
  it('streams text, the end and the figures', async () => {
    const chunks = [
      { choices: [{ delta: { role: 'assistant' } }] },
      { choices: [{ delta: { content: 'Hi' } }] },
      { choices: [{ delta: {}, finish_reason: 'length' }] },
      { choices: [], usage: { prompt_tokens: 3, completion_tokens: 1 }, timings: { tokens_per_second: 20 } },
    ];
    answer(`${chunks.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`).join('')}data: [DONE]\n\n`);
    const events = await chat();
    expect(events.map(({ kind }) => kind)).toEqual(['text', 'finish', 'usage', 'timings']);
    expect(events[2]).toEqual({ kind: 'usage', usage: { promptTokens: 3, completionTokens: 1 } });
  });

  it('takes a stream that ends early for an error', async () => {
    answer('data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n');
    await expect(chat()).rejects.toMatchObject({ kind: 'broken' });
  });

  it.each([
    [401, {}, 'unauthorized'],
    [429, { 'Retry-After': '3' }, 'busy'],
    [400, {}, 'refused'],
  ])('says what status %i means', async (status, headers, kind) => {
    answer(JSON.stringify({ error: { message: 'why' } }), { status, headers });
    await expect(chat()).rejects.toMatchObject({ kind, message: 'why' });
  });

  it('tells an unreachable server from a stopped answer', async () => {
    vi.stubGlobal('fetch', async () => Promise.reject(new TypeError('no network')));
    await expect(new HttpTransport().status()).rejects.toBeInstanceOf(TransportError);
  });
});

describe('what a server sends', () => {
  it.each(['null', '[]', '{"choices":5}', '{"choices":[{"delta":{"content":7}}]}'])('ignores %s', (data) => {
    expect(eventsOf(data)).toEqual([]);
  });

  it('makes a status of anything', () => {
    expect(statusOf(null)).toMatchObject({ model: '', contextLength: 0, blocks: [] });
    const wrong = statusOf({ context_length: 'x', blocks: [null, 3], memory: { rss_bytes: Number.NaN } });
    expect(wrong.blocks).toHaveLength(2);
    expect(wrong.memory.rss).toBe(0);
  });
});
