// What the page shows, as signals. Components read them; chat.ts and library.ts change them.

import { computed, signal } from '@preact/signals';
import type { Conversation, Message } from './conversation';
import { loadDefaults } from './settings';
import type { Status } from './transport';

export type Dialog = 'settings' | 'model' | 'shortcuts' | 'key';

export interface Toast {
  id: number;
  text: string;
  action?: { label: string; run: () => void };
}

/** The answer that is being written. */
export interface Live {
  conversationId: string;
  messageId: string;
  tokens: number;
  rate: number; // tokens/s so far; 0 before the second token
}

export const conversations = signal<Conversation[]>([]);
export const defaults = signal(loadDefaults());
export const current = signal<Conversation | undefined>(undefined);
export const messages = signal<Message[]>([]);
export const live = signal<Live | undefined>(undefined);
export const status = signal<Status | undefined>(undefined);
export const reachable = signal(true);
export const keyRefused = signal(false);
export const dialog = signal<Dialog | undefined>(undefined);
export const listOpen = signal(false); // the list as a drawer, on narrow screens
export const editing = signal<string | undefined>(undefined); // id of the message being edited
export const toasts = signal<Toast[]>([]);
export const announcements = signal<{ id: number; text: string }[]>([]);
export const storageWorks = signal(true);

/** Settings of the open conversation, or those that a new one starts with. */
export const settings = computed(() => current.value?.settings ?? defaults.value);

/** Tokens of the context that the open conversation fills, as far as it is known. */
export const contextUsed = computed(() => {
  const figures = messages.value.findLast((message) => message.figures !== undefined)?.figures;
  const known = figures === undefined ? 0 : figures.promptTokens + figures.completionTokens;
  const writing = live.value?.conversationId === current.value?.id ? (live.value?.tokens ?? 0) : 0;
  return known + writing;
});

let nextAnnouncement = 0;
const KEPT_ANNOUNCEMENTS = 20;

/** Has a screen reader say this after what it says now. */
export function announce(text: string): void {
  const kept = announcements.value.slice(1 - KEPT_ANNOUNCEMENTS);
  announcements.value = [...kept, { id: nextAnnouncement++, text }];
}

let nextToast = 0;
const TOAST_MILLISECONDS = 8000;

export function toast(text: string, action?: Toast['action']): void {
  const shown: Toast = { id: nextToast++, text, ...(action === undefined ? {} : { action }) };
  toasts.value = [...toasts.value.slice(-2), shown];
  setTimeout(() => dismiss(shown.id), TOAST_MILLISECONDS);
}

export function dismiss(id: number): void {
  toasts.value = toasts.value.filter((entry) => entry.id !== id);
}
