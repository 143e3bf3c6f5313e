// The only way from the page to a model. The desktop's page talks HTTP; another shell (the Android app) brings
// another Transport and changes nothing else.

import { readEvents } from './sse';

export interface ChatMessage {
  role: 'system' | 'user' | 'assistant';
  content: string;
}

/** Sampling fields that are left out take the model's defaults. */
export interface Sampling {
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  repetition_penalty?: number;
  max_tokens?: number;
  seed?: number;
}

export interface ChatRequest extends Sampling {
  messages: ChatMessage[];
}

export interface Usage {
  promptTokens: number;
  completionTokens: number;
}

/** Seconds and rates as the engine measured them. */
export interface Timings {
  reusedTokens: number;
  prefillSeconds: number;
  decodeSeconds: number;
  tokensPerSecond: number;
}

export type ChatEvent =
  | { kind: 'text'; text: string }
  | { kind: 'finish'; reason: string }
  | { kind: 'usage'; usage: Usage }
  | { kind: 'timings'; timings: Timings };

export interface BlockPlace {
  index: number;
  engine: string;
  place: string;
}

export interface Status {
  model: string;
  contextLength: number;
  engine: string;
  threads: number;
  blocks: BlockPlace[];
  memory: { rss: number; weights: number; cache: number; buffers: number };
  requests: { running: number; waiting: number };
  samplingDefaults: Record<string, number>;
  template: boolean;
  version: string;
}

export interface Transport {
  /** Where the model runs, if not on the reader's own machine. */
  readonly remoteHost: string | undefined;
  /** Streams one answer. Aborting the signal stops the model and ends the iteration. */
  chat(request: ChatRequest, signal: AbortSignal): AsyncIterable<ChatEvent>;
  status(): Promise<Status>;
  /** The key sent with every call; only asked for after a TransportError of kind 'unauthorized'. */
  setKey(key: string): void;
}

export type FailureKind = 'unauthorized' | 'busy' | 'unreachable' | 'refused' | 'broken';

/** Why a call failed; `message` is the server's own words where it had any. */
export class TransportError extends Error {
  constructor(
    readonly kind: FailureKind,
    message: string,
    readonly retryAfterSeconds: number | undefined = undefined,
  ) {
    super(message);
    this.name = 'TransportError';
  }
}

const KEY = 'pocketglm.key';
const LOCAL = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

export class HttpTransport implements Transport {
  private key = sessionStorage.getItem(KEY) ?? '';
  private model = '';

  readonly remoteHost: string | undefined;

  constructor(private readonly base = new URL('.', document.baseURI)) {
    this.remoteHost = LOCAL.test(base.hostname) ? undefined : base.host;
  }

  setKey(key: string): void {
    this.key = key;
    sessionStorage.setItem(KEY, key);
  }

  async *chat(request: ChatRequest, signal: AbortSignal): AsyncGenerator<ChatEvent> {
    const model = this.model || (await this.status()).model;
    const body = JSON.stringify({ ...request, model, stream: true, stream_options: { include_usage: true } });
    const headers = { 'Content-Type': 'application/json' };
    const response = await this.fetch('v1/chat/completions', { method: 'POST', body, headers, signal });
    if (response.body === null) throw new TransportError('broken', 'The answer had no body');
    for await (const data of readEvents(response.body)) {
      if (data === '[DONE]') return;
      yield* eventsOf(data);
    }
    throw new TransportError('broken', 'The connection ended before the answer did');
  }

  async status(): Promise<Status> {
    const response = await this.fetch('v1/pocketglm/status', {});
    const status = statusOf(await response.json().catch(() => ({})));
    this.model = status.model;
    return status;
  }

  private async fetch(path: string, init: RequestInit): Promise<Response> {
    const headers = new Headers(init.headers);
    if (this.key !== '') headers.set('Authorization', `Bearer ${this.key}`);
    let response: Response;
    try {
      response = await fetch(new URL(path, this.base), { ...init, headers, cache: 'no-store' });
    } catch (error) {
      if (init.signal?.aborted) throw error;
      throw new TransportError('unreachable', String(error));
    }
    if (!response.ok) throw await failureOf(response);
    return response;
  }
}

async function failureOf(response: Response): Promise<TransportError> {
  const body: unknown = await response.json().catch(() => undefined);
  const message = text(record(record(body).error).message) || `${response.status} ${response.statusText}`;
  if (response.status === 401) return new TransportError('unauthorized', message);
  const retry = Number(response.headers.get('Retry-After') ?? Number.NaN);
  if (response.status === 429) return new TransportError('busy', message, retry > 0 ? retry : undefined);
  return new TransportError('refused', message);
}

/** What one chunk of OpenAI's stream says; text comes before the end, the end before the figures. */
export function eventsOf(data: string): ChatEvent[] {
  let chunk: Record<string, unknown>;
  try {
    chunk = record(JSON.parse(data));
  } catch {
    throw new TransportError('broken', `The stream held something that is not JSON: ${data.slice(0, 80)}`);
  }
  if (chunk.error) throw new TransportError('refused', text(record(chunk.error).message) || 'Unknown error');
  const events: ChatEvent[] = [];
  const choice = record(list(chunk.choices)[0]);
  const content = text(record(choice.delta).content);
  if (content !== '') events.push({ kind: 'text', text: content });
  if (text(choice.finish_reason) !== '') events.push({ kind: 'finish', reason: text(choice.finish_reason) });
  if (chunk.usage) events.push({ kind: 'usage', usage: usageOf(record(chunk.usage)) });
  if (chunk.timings) events.push({ kind: 'timings', timings: timingsOf(record(chunk.timings)) });
  return events;
}

function usageOf(usage: Record<string, unknown>): Usage {
  return { promptTokens: number(usage.prompt_tokens), completionTokens: number(usage.completion_tokens) };
}

function timingsOf(timings: Record<string, unknown>): Timings {
  return {
    reusedTokens: number(timings.reused_tokens),
    prefillSeconds: number(timings.prefill_s),
    decodeSeconds: number(timings.decode_s),
    tokensPerSecond: number(timings.tokens_per_second),
  };
}

/** A status as the page uses it; what is missing or of another type counts as zero or empty. */
export function statusOf(body: unknown): Status {
  const status = record(body);
  const memory = record(status.memory);
  const requests = record(status.requests);
  const { max_new_tokens: max_tokens, ...others } = record(status.sampling_defaults);
  const defaults = Object.entries({ max_tokens, ...others });
  return {
    model: text(status.model),
    contextLength: number(status.context_length),
    engine: text(status.engine),
    threads: number(status.threads),
    blocks: list(status.blocks).map(record).map(blockOf),
    memory: {
      rss: number(memory.rss_bytes),
      weights: number(memory.weight_bytes),
      cache: number(memory.cache_bytes),
      buffers: number(memory.buffer_bytes),
    },
    requests: { running: number(requests.running), waiting: number(requests.waiting) },
    samplingDefaults: Object.fromEntries(defaults.filter(([, value]) => typeof value === 'number')) as Record<
      string,
      number
    >,
    template: status.template === true,
    version: text(status.version),
  };
}

function blockOf(block: Record<string, unknown>): BlockPlace {
  return { index: number(block.index), engine: text(block.engine), place: text(block.place) };
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function number(value: unknown): number {
  return typeof value === 'number' && Number.isFinite(value) ? value : 0;
}
