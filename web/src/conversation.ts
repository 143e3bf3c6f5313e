// What a conversation is, and the ways to change it: values in, values out, nothing stored.

import type { ChatMessage, Sampling } from './transport';

/** Figures of one answer; the page shows them under it. */
export interface AnswerFigures {
  promptTokens: number;
  completionTokens: number;
  reusedTokens?: number;
  tokensPerSecond?: number;
}

/** How an answer ended: `stopped` by the reader, `length` at the token limit, `failed` with an error. */
export type Ending = 'stop' | 'length' | 'stopped' | 'failed';

export interface Message {
  id: string;
  role: 'user' | 'assistant';
  text: string;
  ending?: Ending;
  error?: string;
  figures?: AnswerFigures;
}

export interface Settings extends Sampling {
  system: string;
}

export interface Conversation {
  id: string;
  title: string;
  created: number; // milliseconds since 1970
  updated: number;
  settings: Settings;
}

export const TITLE_LENGTH = 60;

export function newConversation(settings: Settings, now: number): Conversation {
  return { id: newId(), title: '', created: now, updated: now, settings };
}

/** 128 random bits; crypto.randomUUID is missing on plain HTTP addresses other than localhost. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** The first line of the first message, cut at a word where there is one. */
export function titleFrom(text: string): string {
  const line = text.trim().split('\n', 1)[0]?.trim() ?? '';
  const characters = [...line];
  if (characters.length <= TITLE_LENGTH) return line;
  const cut = characters.slice(0, TITLE_LENGTH).join('');
  const space = cut.lastIndexOf(' ');
  return `${space > TITLE_LENGTH / 2 ? cut.slice(0, space) : cut}…`;
}

/** What the model is sent: the system prompt, then the messages, without answers that hold nothing. */
export function promptOf(messages: Message[], system: string): ChatMessage[] {
  const prompt: ChatMessage[] = messages
    .filter((message) => message.role === 'user' || message.text !== '')
    .map((message) => ({ role: message.role, content: withoutThinking(message) }));
  return system.trim() === '' ? prompt : [{ role: 'system', content: system }, ...prompt];
}

/** The messages before the one with this id; all of them where there is none. */
export function before(messages: Message[], id: string): Message[] {
  const index = messages.findIndex((message) => message.id === id);
  return index < 0 ? messages : messages.slice(0, index);
}

export interface Answer {
  thinking: string;
  thinkingDone: boolean;
  text: string;
}

/** Some models write what they think between <think> and </think> before they answer. */
export function splitThinking(text: string): Answer {
  const opening = /^\s*<think>/.exec(text);
  if (opening === null) return { thinking: '', thinkingDone: true, text };
  const end = text.indexOf('</think>', opening[0].length);
  if (end < 0) return { thinking: text.slice(opening[0].length), thinkingDone: false, text: '' };
  const rest = text.slice(end + '</think>'.length).replace(/^\s+/, '');
  return { thinking: text.slice(opening[0].length, end), thinkingDone: true, text: rest };
}

function withoutThinking(message: Message): string {
  return message.role === 'assistant' ? splitThinking(message.text).text : message.text;
}
