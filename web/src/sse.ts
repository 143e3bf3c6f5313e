// Server-sent events: bytes of a response in, the text of each event's data out.

/** Splits text that arrives in pieces into events; lines may end in LF, CR LF or CR. */
export class EventSplitter {
  private rest = '';
  private data: string[] = [];

  /** The data of every event that this piece completes. */
  push(piece: string): string[] {
    const lines = (this.rest + piece).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop() ?? '';
    const events: string[] = [];
    for (const line of lines) this.line(line.replace(/\r$/, ''), events);
    return events;
  }

  private line(line: string, events: string[]): void {
    if (line === '') {
      if (this.data.length > 0) events.push(this.data.join('\n'));
      this.data = [];
    } else if (line.startsWith('data:')) {
      this.data.push(line.slice(line[5] === ' ' ? 6 : 5));
    }
  }
}

/** The data of each event of a body; broken UTF-8 becomes U+FFFD, as everywhere on the web. */
export async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const splitter = new EventSplitter();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      yield* splitter.push(decoder.decode(value, { stream: true }));
    }
    yield* splitter.push(`${decoder.decode()}\n\n`);
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
