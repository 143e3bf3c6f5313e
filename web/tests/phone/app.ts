// An app around the page's code: answers calls as it is told, and says what an engine would say.

import type { Bridge } from '../../src/phone/bridge';
import { HostError } from '../../src/phone/bridge';
import { Engine } from '../../src/phone/engine';
import { Models } from '../../src/phone/models';
import type { Prompter } from '../../src/phone/prompt/prompter';
import { PhoneTransport } from '../../src/phone/transport';

type Params = Record<string, unknown>;
type Answer = (params: Params) => Params;

export const PACKAGE = {
  id: '0123456789abcdef',
  name: 'small',
  complete: true,
  bytes: 1000,
  copied: 1000,
  family: 'llama',
  blocks: 4,
  contextLength: 64,
  template: true,
};
const PLAN = { fits: true, context: 64, kv: 'float16', threads: 2, anonymous: 10, weights: 20, free: 99 };

export class FakeApp implements Bridge {
  readonly calls: [string, Params][] = [];
  readonly lines: Params[] = [];
  readonly answers: Record<string, Answer> = {
    'device.info': () => ({ version: '1', memory: { free: 99, total: 999 }, storage: { free: 9 }, cores: 8 }),
    'packages.list': () => ({ packages: [PACKAGE], running: null }),
    'engine.plan': () => PLAN,
    'engine.start': () => ({ plan: PLAN, loaded: { context: 64, threads: 2, blocks: 4, weight_bytes: 20 } }),
    'engine.send': ({ line }) => {
      const request = JSON.parse(String(line)) as Params;
      this.lines.push(request);
      queueMicrotask(() => this.engine(request));
      return {};
    },
  };
  /** What the engine does with a request. */
  engine: (request: Params) => void = ({ command, id }) => {
    if (command === 'stats') this.say({ event: 'stats', id, anonymous_bytes: 5, cache_bytes: 3 });
  };
  private readonly listeners = new Map<string, ((data: Params) => void)[]>();

  async call(method: string, params: Params = {}): Promise<Params> {
    this.calls.push([method, params]);
    return (this.answers[method] ?? (() => ({})))(params);
  }

  on(event: string, listener: (data: Params) => void): void {
    this.listeners.set(event, [...(this.listeners.get(event) ?? []), listener]);
  }

  event(name: string, data: Params = {}): void {
    for (const listener of this.listeners.get(name) ?? []) listener(data);
  }

  say(line: Params): void {
    this.event('engine.line', { line: JSON.stringify(line) });
  }

  count(method: string): number {
    return this.calls.filter(([name]) => name === method).length;
  }
}

export function refusal(code: string, details: Params = {}): Answer {
  return () => {
    throw new HostError(code, code, details);
  };
}

/** One token a character; the prompt is the messages' texts. */
export const PROMPTER = {
  load: async () => 256,
  encode: async (messages: { content: string }[]) =>
    messages.flatMap(({ content }) => [...content].map((character) => character.charCodeAt(0))),
  stream: async () => ({
    push: async (tokens: number[]) => tokens.map((token) => String.fromCharCode(token)),
    finish: async () => '',
  }),
} as unknown as Prompter;

export interface Phone {
  app: FakeApp;
  engine: Engine;
  models: Models;
  transport: PhoneTransport;
}

/** `files` are the package's small files; a tokenizer is there. */
export function phone(files: Record<string, string> = {}): Phone {
  const all: Record<string, string> = { 'tokenizer.json': '{}', 'chat_template.jinja': '', ...files };
  globalThis.fetch = async (address) => {
    const found = all[String(address).split('/').at(-1) ?? ''];
    return new Response(found ?? '', { status: found === undefined ? 404 : 200 });
  };
  const app = new FakeApp();
  const engine = new Engine(app);
  const models = new Models(app, engine, PROMPTER);
  return { app, engine, models, transport: new PhoneTransport(models, engine, PROMPTER) };
}
