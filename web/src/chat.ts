// One answer at a time: sends the conversation, shows the answer as it comes, keeps it.

import { batch } from '@preact/signals';
import { before, type Conversation, type Ending, type Message, newId, promptOf } from './conversation';
import { t } from './i18n';
import { create, keep } from './library';
import { samplingOf } from './settings';
import {
  announce,
  conversations,
  current,
  dialog,
  keyRefused,
  live,
  messages,
  reachable,
  status,
  toast,
} from './state';
import { type ChatEvent, type Transport, TransportError } from './transport';

const SAVE_MILLISECONDS = 2000;
const STATUS_MILLISECONDS = 4000;

export class Chat {
  private stopper: AbortController | undefined;
  private running: Promise<void> = Promise.resolve();
  private again: (() => void) | undefined; // what to do once a key is given
  private keyAsked = false;
  private keyTried = false;

  constructor(private readonly transport: Transport) {}

  get remoteHost(): string | undefined {
    return this.transport.remoteHost;
  }

  /** Sends a message at the end of the open conversation. */
  async send(text: string): Promise<void> {
    if (live.value !== undefined || text.trim() === '') return;
    const conversation = current.value ?? create(text);
    await this.ask(conversation, [...messages.value, { id: newId(), role: 'user', text }]);
  }

  /** Puts a new text in place of a message; what came after it is replaced, and can be brought back. */
  async resend(id: string, text: string): Promise<void> {
    const conversation = current.value;
    if (conversation === undefined || live.value !== undefined || text.trim() === '') return;
    const old = messages.value;
    const kept = before(old, id);
    this.offerBack(conversation, old);
    await this.ask(conversation, [...kept, { id: newId(), role: 'user', text }]);
  }

  /** Answers again the message before this answer. */
  async regenerate(id: string): Promise<void> {
    const conversation = current.value;
    if (conversation === undefined || live.value !== undefined) return;
    const old = messages.value;
    if (old.find((message) => message.id === id)?.text) this.offerBack(conversation, old);
    await this.ask(conversation, before(old, id));
  }

  stop(): void {
    this.stopper?.abort();
  }

  useKey(key: string): void {
    this.transport.setKey(key);
    this.keyTried = true;
    this.keyAsked = false;
    dialog.value = undefined;
    const again = this.again;
    this.again = undefined;
    if (again === undefined) void this.refreshStatus();
    else again();
  }

  /** Asks for the status now and then, while the page is looked at. */
  watchStatus(): void {
    void this.refreshStatus();
    setInterval(() => {
      if (!document.hidden && dialog.value !== 'key') void this.refreshStatus();
    }, STATUS_MILLISECONDS);
  }

  async refreshStatus(): Promise<void> {
    try {
      status.value = await this.transport.status();
      reachable.value = true;
      keyRefused.value = false;
    } catch (error) {
      const unauthorized = error instanceof TransportError && error.kind === 'unauthorized';
      if (unauthorized) this.askForKey();
      reachable.value = unauthorized;
    }
  }

  private askForKey(again?: () => void): void {
    if (again !== undefined) this.again = again;
    else if (this.keyAsked) return; // who closed the dialog is not asked again by the clock
    this.keyAsked = true;
    keyRefused.value = this.keyTried;
    dialog.value = 'key';
  }

  private offerBack(conversation: Conversation, old: Message[]): void {
    const run = async () => {
      if (live.value?.conversationId === conversation.id) this.stop();
      await this.running;
      if (current.value?.id === conversation.id) messages.value = old;
      await keep(conversation, old);
    };
    toast(t('replaced'), { label: t('undo'), run: () => void run() });
  }

  private ask(conversation: Conversation, asked: Message[]): Promise<void> {
    this.running = this.answer(conversation, asked);
    return this.running;
  }

  private async answer(conversation: Conversation, asked: Message[]): Promise<void> {
    const stopper = new AbortController();
    this.stopper = stopper;
    const answer = new AnswerInProgress({ ...conversation, updated: Date.now() }, asked);
    const request = {
      messages: promptOf(asked, conversation.settings.system),
      ...samplingOf(conversation.settings),
    };
    await answer.begin();
    try {
      for await (const event of this.transport.chat(request, stopper.signal)) answer.take(event);
      await answer.end();
    } catch (error) {
      if (stopper.signal.aborted) await answer.end('stopped');
      else await this.fail(answer, error);
    }
    void this.refreshStatus();
  }

  private async fail(answer: AnswerInProgress, error: unknown): Promise<void> {
    const failure = error instanceof TransportError ? error : new TransportError('broken', String(error));
    const seconds = failure.retryAfterSeconds;
    const busy = seconds === undefined ? t('busy') : t('busyFor', { seconds });
    const said = { unreachable: t('offline'), busy, unauthorized: t('keyText') };
    await answer.end('failed', said[failure.kind as keyof typeof said] ?? failure.message);
    if (failure.kind === 'unauthorized') this.askForKey(() => void this.regenerate(answer.message.id));
  }
}

/** The answer being written. Its text reaches the page once a frame, the disk every two seconds. */
class AnswerInProgress {
  message: Message = { id: newId(), role: 'assistant', text: '' };
  private text = '';
  private tokens = 0;
  private firstAt = 0;
  private scheduled = false;
  private savedAt = performance.now();
  private ended = false;

  constructor(
    private conversation: Conversation,
    private readonly asked: Message[],
  ) {}

  async begin(): Promise<void> {
    live.value = { conversationId: this.conversation.id, messageId: this.message.id, tokens: 0, rate: 0 };
    announce(t('answering'));
    if (current.value?.id === this.conversation.id) current.value = this.conversation;
    this.show();
    await keep(this.conversation, this.asked);
  }

  take(event: ChatEvent): void {
    if (event.kind === 'text') this.add(event.text);
    if (event.kind === 'finish')
      this.message = { ...this.message, ending: event.reason === 'length' ? 'length' : 'stop' };
    if (event.kind === 'usage') this.figures({ ...event.usage });
    if (event.kind === 'timings') {
      const { reusedTokens, tokensPerSecond } = event.timings;
      this.figures({ reusedTokens, tokensPerSecond });
    }
  }

  async end(ending?: Ending, error?: string): Promise<void> {
    this.ended = true;
    this.message = { ...this.message, text: this.text };
    this.message.ending = ending ?? this.message.ending ?? 'stop';
    if (error !== undefined) this.message.error = error;
    if (ending === 'stopped') this.estimate();
    batch(() => {
      this.show();
      live.value = undefined;
    });
    announce(error ?? t('answered'));
    await this.save();
  }

  private add(piece: string): void {
    const now = performance.now();
    if (this.tokens === 0) this.firstAt = now;
    this.text += piece;
    this.tokens++;
    if (this.scheduled) return;
    this.scheduled = true;
    nextFrame(() => this.flush());
  }

  private flush(): void {
    this.scheduled = false;
    if (this.ended) return;
    this.message = { ...this.message, text: this.text };
    batch(() => {
      this.show();
      if (live.value !== undefined) live.value = { ...live.value, tokens: this.tokens, rate: this.rate() };
    });
    if (performance.now() - this.savedAt > SAVE_MILLISECONDS) void this.save();
  }

  /** Tokens a second since the first; a piece of the stream counts as a token. */
  private rate(): number {
    const seconds = (performance.now() - this.firstAt) / 1000;
    return this.tokens > 1 && seconds > 0 ? (this.tokens - 1) / seconds : 0;
  }

  /** A stopped stream brings no figures: those counted here stand in. */
  private estimate(): void {
    const before = this.asked.findLast(({ figures }) => figures !== undefined)?.figures;
    const promptTokens = before === undefined ? 0 : before.promptTokens + before.completionTokens;
    if (this.tokens > 0)
      this.figures({ promptTokens, completionTokens: this.tokens, tokensPerSecond: this.rate() });
  }

  private figures(more: Partial<NonNullable<Message['figures']>>): void {
    const known = this.message.figures ?? { promptTokens: 0, completionTokens: 0 };
    this.message = { ...this.message, figures: { ...known, ...more } };
  }

  private show(): void {
    if (current.value?.id === this.conversation.id) messages.value = [...this.asked, this.message];
  }

  /** The conversation may have been renamed, changed or deleted meanwhile: only the messages are ours. */
  private async save(): Promise<void> {
    this.savedAt = performance.now();
    const latest = conversations.value.find(({ id }) => id === this.conversation.id);
    if (latest !== undefined) await keep(latest, [...this.asked, this.message]);
  }
}

/** Before the next frame, or soon where frames do not come because the tab is hidden. */
function nextFrame(run: () => void): void {
  if (document.hidden) setTimeout(run, 200);
  else requestAnimationFrame(run);
}
