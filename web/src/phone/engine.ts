// The engine's requests and events (docs/engine-protocol.md), over the bridge.

import { newId } from '../conversation';
import { type Bridge, number, record, text } from './bridge';

export interface GenerateRequest extends Record<string, unknown> {
  tokens: number[];
}

export interface Done {
  reason: string;
  promptTokens: number;
  reusedTokens: number;
  generatedTokens: number;
  prefillSeconds: number;
  decodeSeconds: number;
  tokensPerSecond: number;
}

/** Tokens that came since the last step, then how the answer ended. */
export type Step = { tokens: number[] } | { done: Done };

/** An error event, or the engine's end. `code` is the protocol's, or `exit`. */
export class EngineError extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
    this.name = 'EngineError';
  }
}

type Event = Record<string, unknown>;

export class Engine {
  private nextId = 1;
  // A page that was loaded again must not take the answers to what it asked before for new ones.
  private readonly run = newId().slice(0, 8);
  private readonly answers = new Map<string, (event: Event) => void>();

  constructor(private readonly bridge: Bridge) {
    bridge.on('engine.line', ({ line }) => this.take(text(line)));
    bridge.on('engine.exit', () => this.end());
  }

  get answering(): boolean {
    return [...this.answers.keys()].some((id) => id.startsWith('answer'));
  }

  /** One answer's tokens as they come. Aborting stops it; its end comes all the same. */
  async *generate(request: GenerateRequest, signal: AbortSignal): AsyncGenerator<Step, void, undefined> {
    const id = `answer-${this.run}-${this.nextId++}`;
    const events = new EventQueue();
    this.answers.set(id, (event) => events.put(event));
    const stop = () => void this.send({ command: 'stop', id }).catch(() => undefined);
    try {
      await this.send({ command: 'generate', id, ...request });
      if (signal.aborted) stop();
      else signal.addEventListener('abort', stop);
      while (true) {
        const tokens: number[] = [];
        for (const event of await events.take()) {
          if (event.event === 'token') tokens.push(number(event.token));
          if (event.event !== 'done' && event.event !== 'error') continue;
          if (tokens.length > 0) yield { tokens };
          if (event.event === 'error') throw new EngineError(text(event.code), text(event.message));
          yield { done: doneOf(event) };
          return;
        }
        yield { tokens };
      }
    } finally {
      signal.removeEventListener('abort', stop);
      if (this.answers.delete(id)) stop(); // who does not wait for the end wants no more of it
    }
  }

  /** What is in use. Answered after running answers. */
  async stats(): Promise<Record<string, unknown>> {
    const id = `stats-${this.run}-${this.nextId++}`;
    const events = new EventQueue();
    this.answers.set(id, (event) => events.put(event));
    try {
      await this.send({ command: 'stats', id });
      const event = (await events.take())[0] as Event;
      if (event.event === 'error') throw new EngineError(text(event.code), text(event.message));
      return event;
    } finally {
      this.answers.delete(id);
    }
  }

  /** Ends every answer, also those that an earlier run of the page has asked for. */
  async stopAll(): Promise<void> {
    await this.send({ command: 'stop' });
  }

  private async send(request: Record<string, unknown>): Promise<void> {
    await this.bridge.call('engine.send', { line: JSON.stringify(request) });
  }

  private take(line: string): void {
    let event: Event;
    try {
      event = record(JSON.parse(line));
    } catch {
      return; // a line that was cut off by the engine's end
    }
    const id = text(event.id);
    const answer = this.answers.get(id);
    if (event.event === 'done' || event.event === 'error') this.answers.delete(id);
    answer?.(event);
  }

  private end(): void {
    const running = [...this.answers.values()];
    this.answers.clear();
    for (const answer of running) answer({ event: 'error', code: 'exit', message: 'the engine has ended' });
  }
}

function doneOf(event: Event): Done {
  return {
    reason: text(event.reason),
    promptTokens: number(event.prompt_tokens),
    reusedTokens: number(event.reused_tokens),
    generatedTokens: number(event.generated_tokens),
    prefillSeconds: number(event.prefill_s),
    decodeSeconds: number(event.decode_s),
    tokensPerSecond: number(event.decode_tps),
  };
}

/** Events put in by one side and taken out, all that are there at once, by the other. */
class EventQueue {
  private events: Event[] = [];
  private wake: (() => void) | undefined;

  put(event: Event): void {
    this.events.push(event);
    this.wake?.();
  }

  async take(): Promise<Event[]> {
    if (this.events.length === 0)
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    const taken = this.events;
    this.events = [];
    this.wake = undefined;
    return taken;
  }
}
