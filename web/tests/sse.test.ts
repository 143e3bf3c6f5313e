import { describe, expect, it } from 'vitest';
import { EventSplitter, readEvents } from '../src/sse';

const STREAM =
  'data: {"a":1}\n\n: comment\r\nevent: x\r\ndata:two\r\ndata: lines\r\n\r\ndata: \r\rdata: last\n\n';
const EVENTS = ['{"a":1}', 'two\nlines', '', 'last'];

function bodyOf(pieces: Uint8Array[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      for (const piece of pieces) controller.enqueue(piece);
      controller.close();
    },
  });
}

async function read(pieces: Uint8Array[]): Promise<string[]> {
  const events: string[] = [];
  for await (const event of readEvents(bodyOf(pieces))) events.push(event);
  return events;
}

describe('EventSplitter', () => {
  it.each([1, 2, 3, 5, 7, 1000])('gives the same events from pieces of %i characters', (size) => {
    const splitter = new EventSplitter();
    const events: string[] = [];
    for (let at = 0; at < STREAM.length; at += size)
      events.push(...splitter.push(STREAM.slice(at, at + size)));
    expect(events).toEqual(EVENTS);
  });
});

describe('readEvents', () => {
  it('joins a character that arrives in two pieces', async () => {
    const bytes = new TextEncoder().encode('data: 你好\n\n');
    expect(await read([bytes.slice(0, 7), bytes.slice(7)])).toEqual(['你好']);
  });

  it('puts U+FFFD for bytes that are no UTF-8, and takes an event without its last empty line', async () => {
    const bytes = new Uint8Array([...new TextEncoder().encode('data: a'), 0xff, 0x62]);
    expect(await read([bytes])).toEqual(['a\ufffdb']);
  });
});
