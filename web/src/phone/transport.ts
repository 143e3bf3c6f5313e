// The phone's way to a model: prompts are made here in the page, the engine answers over the bridge.

import { type ChatEvent, type ChatRequest, type Status, type Transport, TransportError } from '../transport';
import { roomFor, settingsFor } from './answerDefaults';
import { HostError, number } from './bridge';
import { type Done, type Engine, EngineError } from './engine';
import type { Models } from './models';
import { PromptProblem } from './prompt/problem';
import type { Prompter, TextStream } from './prompt/prompter';
import { StopMatcher } from './prompt/stopping';
import { p } from './texts';
import type { Running } from './values';

export class PhoneTransport implements Transport {
  readonly remoteHost = undefined;
  private figuresOf: Running | undefined;
  private lastFigures: Record<string, unknown> = {};

  constructor(
    private readonly models: Models,
    private readonly engine: Engine,
    private readonly prompter: Prompter,
  ) {}

  setKey(): void {
    throw new Error('The phone asks for no key');
  }

  async *chat(request: ChatRequest, signal: AbortSignal): AsyncGenerator<ChatEvent> {
    try {
      yield* this.answer(request, signal);
    } catch (error) {
      throw failureOf(error);
    } finally {
      this.figuresOf = undefined;
    }
  }

  async status(): Promise<Status> {
    const running = this.models.running.value;
    if (running === undefined) throw new TransportError('unreachable', p('noModel'));
    return statusOf(running, await this.figures(running), this.models.device.value?.version ?? '');
  }

  /** What the engine has in use. Asked for after a start and after each answer only: an idle phone stays idle. */
  private async figures(running: Running): Promise<Record<string, unknown>> {
    // The engine answers one request after the other: figures wait for the end of an answer.
    if (this.figuresOf !== running && !this.engine.answering) {
      this.lastFigures = await this.engine.stats().catch(() => ({}));
      this.figuresOf = running;
    }
    return this.lastFigures;
  }

  private async *answer(request: ChatRequest, signal: AbortSignal): AsyncGenerator<ChatEvent> {
    const running = await this.models.ready();
    if (running === undefined) throw new TransportError('refused', p('noModel'));
    const { messages, ...sampling } = request;
    const tokens = await this.prompter.encode(messages);
    const total = roomFor(running.defaults, sampling, running.context);
    if (tokens.length >= total)
      throw new TransportError('refused', p('tooLong', { prompt: tokens.length, total }));
    signal.throwIfAborted();
    const settings = settingsFor(running.defaults, sampling, tokens.length, running.context);
    const matcher = new StopMatcher(settings.stops);
    yield* this.stream({ tokens, ...settings.request }, matcher, signal);
    this.models.answered();
    signal.throwIfAborted(); // as a fetch does: the answer counts as stopped
  }

  private async *stream(
    request: { tokens: number[] } & Record<string, unknown>,
    matcher: StopMatcher,
    signal: AbortSignal,
  ): AsyncGenerator<ChatEvent> {
    const stopper = new AbortController(); // the reader's stop, or a stop string
    const stop = () => stopper.abort();
    signal.addEventListener('abort', stop);
    const decoder = await this.prompter.stream();
    let shown = 0; // tokens up to the stop string
    try {
      for await (const step of this.engine.generate(request, stopper.signal)) {
        if ('done' in step) yield* this.end(step.done, decoder, matcher, shown);
        else
          for (const piece of await decoder.push(step.tokens)) {
            if (matcher.matched) break;
            shown++;
            const text = matcher.feed(piece);
            if (text !== '') yield { kind: 'text', text };
            if (matcher.matched) stop();
          }
      }
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  private async *end(
    done: Done,
    decoder: TextStream,
    matcher: StopMatcher,
    shown: number,
  ): AsyncGenerator<ChatEvent> {
    const rest = matcher.feed(await decoder.finish()) + (matcher.matched ? '' : matcher.flush());
    if (rest !== '') yield { kind: 'text', text: rest };
    yield { kind: 'finish', reason: matcher.matched ? 'stop' : done.reason };
    yield { kind: 'usage', usage: { promptTokens: done.promptTokens, completionTokens: shown } };
    const { reusedTokens, prefillSeconds, decodeSeconds, tokensPerSecond } = done;
    yield { kind: 'timings', timings: { reusedTokens, prefillSeconds, decodeSeconds, tokensPerSecond } };
  }
}

function failureOf(error: unknown): unknown {
  if (error instanceof PromptProblem)
    return new TransportError('refused', p('promptProblem', { reason: error.message }));
  if (error instanceof EngineError && error.code !== 'exit')
    return new TransportError('refused', error.message);
  if (error instanceof EngineError || error instanceof HostError)
    return new TransportError('broken', p('engineGone'));
  return error;
}

function statusOf(running: Running, stats: Record<string, unknown>, version: string): Status {
  const { max_new_tokens, max_length: _, seed: __, ...others } = running.defaults.numbers;
  const defaults = { ...others, ...(max_new_tokens === undefined ? {} : { max_tokens: max_new_tokens }) };
  // Blocks are kept in memory from the first on, as far as the limit goes; the others are read from storage.
  const whole = running.weightBytes + running.streamedBytes;
  const kept = whole > 0 ? Math.floor((running.blocks * running.weightBytes) / whole) : running.blocks;
  return {
    model: running.package.name,
    contextLength: running.context,
    engine: 'native',
    threads: running.threads,
    blocks: Array.from({ length: running.blocks }, (_, index) => ({
      index,
      engine: 'native',
      place: running.streamedBytes === 0 || index < kept ? 'cpu' : 'disk',
    })),
    memory: {
      rss: Math.max(0, number(stats.anonymous_bytes)),
      weights: number(stats.weight_bytes) || running.weightBytes,
      cache: number(stats.cache_bytes),
      buffers: number(stats.buffer_bytes),
    },
    requests: { running: 0, waiting: 0 },
    samplingDefaults: defaults,
    template: running.template,
    version,
  };
}
