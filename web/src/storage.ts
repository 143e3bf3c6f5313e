// Conversations in the browser's IndexedDB. The list is small and read at once; messages are read one
// conversation at a time.

import { type DBSchema, type IDBPDatabase, openDB } from 'idb';
import type { Conversation, Message } from './conversation';
import type { Stored } from './exchange';

interface Schema extends DBSchema {
  conversations: { key: string; value: Conversation };
  messages: { key: string; value: Message[] };
}

const NAME = 'pocketglm';

export class Storage {
  private constructor(private readonly database: IDBPDatabase<Schema>) {}

  static async open(): Promise<Storage> {
    const database = await openDB<Schema>(NAME, 1, {
      upgrade(created) {
        created.createObjectStore('conversations', { keyPath: 'id' });
        created.createObjectStore('messages');
      },
    });
    return new Storage(database);
  }

  /** All conversations, the latest first. */
  async list(): Promise<Conversation[]> {
    const all = await this.database.getAll('conversations');
    return all.sort((a, b) => b.updated - a.updated);
  }

  async messages(id: string): Promise<Message[]> {
    return (await this.database.get('messages', id)) ?? [];
  }

  async save(conversation: Conversation, messages?: Message[]): Promise<void> {
    const change = this.database.transaction(['conversations', 'messages'], 'readwrite');
    const writes: Promise<unknown>[] = [change.objectStore('conversations').put(conversation), change.done];
    if (messages !== undefined) writes.push(change.objectStore('messages').put(messages, conversation.id));
    await Promise.all(writes);
  }

  async delete(id: string): Promise<void> {
    const change = this.database.transaction(['conversations', 'messages'], 'readwrite');
    await Promise.all([
      change.objectStore('conversations').delete(id),
      change.objectStore('messages').delete(id),
      change.done,
    ]);
  }

  async saveAll(records: Stored[]): Promise<void> {
    for (const { conversation, messages } of records) await this.save(conversation, messages);
  }

  async all(): Promise<Stored[]> {
    const list = await this.list();
    return Promise.all(
      list.map(async (conversation) => ({ conversation, messages: await this.messages(conversation.id) })),
    );
  }

  /** Ids of the conversations whose title or messages hold these words, letters' case aside. */
  async search(words: string): Promise<Set<string>> {
    const wanted = words.toLocaleLowerCase();
    const holds = (text: string) => text.toLocaleLowerCase().includes(wanted);
    const found = (await this.list()).filter(({ title }) => holds(title)).map(({ id }) => id);
    let cursor = await this.database.transaction('messages').store.openCursor();
    while (cursor) {
      if (cursor.value.some(({ text }) => holds(text))) found.push(cursor.key);
      cursor = await cursor.continue();
    }
    return new Set(found);
  }
}
