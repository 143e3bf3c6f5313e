// The conversations that are kept: open, rename, delete, import, export.

import { batch } from '@preact/signals';
import { type Conversation, type Message, newConversation, type Settings, titleFrom } from './conversation';
import { exportText, importText, type Stored } from './exchange';
import { t } from './i18n';
import { saveDefaults } from './settings';
import { shell } from './shell';
import { conversations, current, defaults, editing, listOpen, messages, storageWorks, toast } from './state';
import { Storage } from './storage';

const LAST = 'pocketglm.open';
let storage: Storage | undefined;
// Messages of conversations while there is no storage (private windows of some browsers).
const unstored = new Map<string, Message[]>();
const otherTabs = new BroadcastChannel('pocketglm');

/** Reads the list and opens the conversation that was open last. */
export async function openLibrary(): Promise<void> {
  try {
    storage = await Storage.open();
    conversations.value = await storage.list();
  } catch {
    storageWorks.value = false;
  }
  otherTabs.onmessage = () => void reload();
  const last = shell.memory.getItem(LAST);
  if (conversations.value.some(({ id }) => id === last)) await openConversation(last ?? '');
}

async function reload(): Promise<void> {
  if (storage !== undefined) conversations.value = await storage.list();
}

export async function messagesOf(id: string): Promise<Message[]> {
  return storage === undefined ? (unstored.get(id) ?? []) : storage.messages(id);
}

/** Keeps a conversation; its place in the list follows its time. */
export async function keep(conversation: Conversation, its?: Message[]): Promise<void> {
  const others = conversations.value.filter(({ id }) => id !== conversation.id);
  conversations.value = [conversation, ...others].sort((a, b) => b.updated - a.updated);
  if (its !== undefined && storage === undefined) unstored.set(conversation.id, its);
  try {
    await storage?.save(conversation, its);
    otherTabs.postMessage('changed');
  } catch {
    storageWorks.value = false;
  }
}

/** An empty page; the conversation comes into being with its first message. */
export function startNew(): void {
  batch(() => {
    current.value = undefined;
    messages.value = [];
    editing.value = undefined;
    listOpen.value = false;
  });
  shell.memory.removeItem(LAST);
}

export function create(first: string): Conversation {
  const created = { ...newConversation(defaults.value, Date.now()), title: titleFrom(first) };
  current.value = created;
  shell.memory.setItem(LAST, created.id);
  return created;
}

export async function openConversation(id: string): Promise<void> {
  const found = conversations.value.find((conversation) => conversation.id === id);
  if (found === undefined) return;
  const its = await messagesOf(id);
  batch(() => {
    current.value = found;
    messages.value = its;
    editing.value = undefined;
    listOpen.value = false;
  });
  shell.memory.setItem(LAST, id);
}

async function change(conversation: Conversation): Promise<void> {
  if (current.value?.id === conversation.id) current.value = conversation;
  await keep(conversation);
}

export async function rename(conversation: Conversation, title: string): Promise<void> {
  const cut = titleFrom(title);
  if (cut !== '') await change({ ...conversation, title: cut });
}

/** Settings of the open conversation; where none is open, of the next new one. */
export async function changeSettings(settings: Settings): Promise<void> {
  const open = current.value;
  if (open === undefined) defaults.value = settings;
  else await change({ ...open, settings });
}

export function useForNew(settings: Settings): void {
  defaults.value = settings;
  saveDefaults(settings);
  toast(t('settingsSaved'));
}

/** Deletes at once; the message that says so can bring it back. */
export async function remove(conversation: Conversation): Promise<void> {
  const its = await messagesOf(conversation.id);
  if (current.value?.id === conversation.id) startNew();
  conversations.value = conversations.value.filter(({ id }) => id !== conversation.id);
  unstored.delete(conversation.id);
  await storage?.delete(conversation.id);
  otherTabs.postMessage('changed');
  toast(t('deleted'), { label: t('undo'), run: () => void keep(conversation, its) });
}

export async function search(words: string): Promise<Set<string>> {
  if (storage !== undefined) return storage.search(words);
  const wanted = words.toLocaleLowerCase();
  const holds = ({ id, title }: Conversation) =>
    [title, ...(unstored.get(id) ?? []).map(({ text }) => text)].some((text) =>
      text.toLocaleLowerCase().includes(wanted),
    );
  return new Set(conversations.value.filter(holds).map(({ id }) => id));
}

/** Saves conversations as a file; all of them without an argument. */
export async function exportFile(only?: Conversation): Promise<void> {
  const chosen = only === undefined ? conversations.value : [only];
  const records: Stored[] = [];
  for (const conversation of chosen)
    records.push({ conversation, messages: await messagesOf(conversation.id) });
  const name = only === undefined ? 'conversations.json' : `${fileName(only.title)}.json`;
  try {
    await shell.saveFile(name, exportText(records));
  } catch (error) {
    toast(t('exportFailed', { reason: error instanceof Error ? error.message : String(error) }));
  }
}

function fileName(title: string): string {
  return title.replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-|-$/g, '') || 'conversation';
}

export async function importFile(file: File): Promise<void> {
  try {
    const records = importText(await file.text());
    for (const { conversation, messages: its } of records) await keep(conversation, its);
    toast(t('imported', { count: records.length }));
  } catch (error) {
    toast(t('importFailed', { reason: error instanceof Error ? error.message : String(error) }));
  }
}
