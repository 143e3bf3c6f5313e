// Conversations as a JSON file: written for other programs to read, read without trusting it.

import { type Conversation, type Ending, type Message, newId, titleFrom } from './conversation';
import { settingsFrom } from './settings';

export interface Stored {
  conversation: Conversation;
  messages: Message[];
}

export const FORMAT = 'pocketglm-conversations';
export const VERSION = 1;
const MAX_CONVERSATIONS = 10_000;
const ENDINGS: Ending[] = ['stop', 'length', 'stopped', 'failed'];

/** Why a file is not taken: what was found, and where. */
export class ImportError extends Error {}

export function exportText(records: Stored[]): string {
  const conversations = records.map(({ conversation, messages }) => ({ ...conversation, messages }));
  return JSON.stringify({ format: FORMAT, version: VERSION, conversations }, null, 2);
}

/** The conversations of a file, under new ids, so that an import never overwrites anything. */
export function importText(text: string): Stored[] {
  let file: unknown;
  try {
    file = JSON.parse(text);
  } catch (error) {
    throw new ImportError(`not JSON: ${String(error)}`);
  }
  if (!isObject(file) || file.format !== FORMAT) throw new ImportError(`"format" is not "${FORMAT}"`);
  if (file.version !== VERSION) throw new ImportError(`"version" is ${String(file.version)}, not ${VERSION}`);
  if (!Array.isArray(file.conversations)) throw new ImportError('"conversations" is not a list');
  if (file.conversations.length > MAX_CONVERSATIONS) throw new ImportError(`more than ${MAX_CONVERSATIONS}`);
  return file.conversations.map((entry, index) => recordFrom(entry, `conversations[${index}]`));
}

function recordFrom(entry: unknown, where: string): Stored {
  if (!isObject(entry)) throw new ImportError(`${where} is not an object`);
  if (!Array.isArray(entry.messages)) throw new ImportError(`${where}.messages is not a list`);
  const messages = entry.messages.map((message, index) =>
    messageFrom(message, `${where}.messages[${index}]`),
  );
  const title = typeof entry.title === 'string' ? titleFrom(entry.title) : '';
  const created = timeFrom(entry.created);
  const updated = Math.max(created, timeFrom(entry.updated));
  const settings = settingsFrom(entry.settings);
  return { conversation: { id: newId(), title, created, updated, settings }, messages };
}

function messageFrom(entry: unknown, where: string): Message {
  if (!isObject(entry)) throw new ImportError(`${where} is not an object`);
  const { role, text, ending, error } = entry;
  if (role !== 'user' && role !== 'assistant')
    throw new ImportError(`${where}.role is ${JSON.stringify(role)}`);
  if (typeof text !== 'string') throw new ImportError(`${where}.text is not a text`);
  const message: Message = { id: newId(), role, text };
  const known = ENDINGS.find((name) => name === ending);
  if (known !== undefined) message.ending = known;
  if (typeof error === 'string') message.error = error;
  const figures = figuresFrom(entry.figures);
  if (figures !== undefined) message.figures = figures;
  return message;
}

function figuresFrom(value: unknown): Message['figures'] {
  if (!isObject(value) || !isCount(value.promptTokens) || !isCount(value.completionTokens)) return undefined;
  const { promptTokens, completionTokens, reusedTokens, tokensPerSecond } = value;
  return {
    promptTokens,
    completionTokens,
    ...(isCount(reusedTokens) ? { reusedTokens } : {}),
    ...(isCount(tokensPerSecond) ? { tokensPerSecond } : {}),
  };
}

function timeFrom(value: unknown): number {
  return isCount(value) && value <= 8.64e15 ? value : 0;
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
