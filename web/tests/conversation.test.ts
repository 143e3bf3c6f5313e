import 'fake-indexeddb/auto';
import { describe, expect, it } from 'vitest';
import { type Message, newConversation, promptOf, splitThinking, titleFrom } from '../src/conversation';
import { exportText, ImportError, importText } from '../src/exchange';
import {
  FIELDS,
  PRESETS,
  type PresetName,
  parseField,
  presetOf,
  settingsFrom,
  withPreset,
} from '../src/settings';
import { Storage } from '../src/storage';

const MESSAGES: Message[] = [
  { id: 'a', role: 'user', text: 'Hello 你好' },
  { id: 'b', role: 'assistant', text: '<think>hm</think>\n\nHi', ending: 'stop' },
  { id: 'c', role: 'assistant', text: '', ending: 'failed', error: 'no' },
];
const SETTINGS = settingsFrom({ system: 'Be brief.', temperature: 0.5 });

describe('conversations', () => {
  it('send the system prompt first, no thoughts and no empty answers', () => {
    expect(promptOf(MESSAGES, 'Be brief.')).toEqual([
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'Hello 你好' },
      { role: 'assistant', content: 'Hi' },
    ]);
    expect(promptOf(MESSAGES, ' ')[0]?.role).toBe('user');
  });

  it('are named after their first line', () => {
    expect(titleFrom('  One\ntwo')).toBe('One');
    expect(titleFrom('word '.repeat(40))).toMatch(/^(word ){10,}word…$/);
    expect(titleFrom('🙂'.repeat(100))).toBe(`${'🙂'.repeat(60)}…`);
  });

  it.each([
    ['<think>a', { thinking: 'a', thinkingDone: false, text: '' }],
    ['<think>a</think>\n\nb', { thinking: 'a', thinkingDone: true, text: 'b' }],
    ['b <think>a</think>', { thinking: '', thinkingDone: true, text: 'b <think>a</think>' }],
  ])('take %s apart', (text, parts) => {
    expect(splitThinking(text)).toEqual(parts);
  });
});

describe('export and import', () => {
  const conversation = { ...newConversation(SETTINGS, 1000), title: 'Title' };

  it('give back everything but the ids', () => {
    const [back] = importText(exportText([{ conversation, messages: MESSAGES }]));
    expect(back?.conversation).toEqual({ ...conversation, id: back?.conversation.id });
    expect(back?.conversation.id).not.toBe(conversation.id);
    expect(back?.messages.map(({ id: _, ...rest }) => rest)).toEqual(
      MESSAGES.map(({ id: _, ...rest }) => rest),
    );
  });

  const file = (conversations: unknown, more = {}) =>
    JSON.stringify({ format: 'pocketglm-conversations', version: 1, conversations, ...more });

  it.each([
    ['no JSON', '{', /not JSON/],
    ['another format', '{}', /"format"/],
    ['another version', file([], { version: 2 }), /"version" is 2/],
    ['no list', file({}), /"conversations"/],
    ['no conversation', file([7]), /conversations\[0\] is not an object/],
    ['no messages', file([{}]), /conversations\[0\].messages/],
    ['another role', file([{ messages: [{ role: 'system', text: '' }] }]), /messages\[0\].role is "system"/],
    ['no text', file([{ messages: [{ role: 'user' }] }]), /messages\[0\].text/],
  ])('refuse %s', (_, text, reason) => {
    expect(() => importText(text)).toThrow(ImportError);
    expect(() => importText(text)).toThrow(reason);
  });

  it('leave out what they do not know', () => {
    const entry = {
      created: 'x',
      settings: { temperature: 99, top_p: 0.5 },
      messages: [{ role: 'user', text: 'a', x: 1 }],
    };
    const [back] = importText(file([{ ...entry, __proto__: { polluted: 1 } }]));
    expect(back?.conversation.settings).toEqual({ system: '', top_p: 0.5 });
    expect(back?.conversation.created).toBe(0);
    expect(Object.keys(back?.messages[0] ?? {})).toEqual(['id', 'role', 'text']);
  });
});

describe('settings', () => {
  it.each(Object.keys(PRESETS) as PresetName[])('know the preset %s again', (name) => {
    const settings = withPreset({ system: 'a', seed: 3, max_tokens: 9 }, name);
    expect(presetOf(settings)).toBe(name);
    expect(settings).toMatchObject({ system: 'a', seed: 3, max_tokens: 9 });
  });

  it.each(['', ' ', 'x', '-1', '1e9', '1.5', 'Infinity'])('take no %j for top_k', (text) => {
    const field = FIELDS.find(({ name }) => name === 'top_k');
    expect(field && parseField(field, text)).toBeUndefined();
  });
});

describe('Storage', () => {
  it('keeps, lists, searches and deletes', async () => {
    const storage = await Storage.open();
    const old = { ...newConversation(SETTINGS, 1), title: 'Old' };
    const recent = { ...newConversation(SETTINGS, 2), title: 'Recent' };
    await storage.save(old, MESSAGES);
    await storage.save(recent, []);
    await storage.save({ ...old, title: 'Older' });
    expect((await storage.list()).map(({ title }) => title)).toEqual(['Recent', 'Older']);
    expect(await storage.messages(old.id)).toEqual(MESSAGES);
    expect(await storage.search('HELLO 你')).toEqual(new Set([old.id]));
    expect(await storage.search('recent')).toEqual(new Set([recent.id]));
    await storage.delete(old.id);
    expect((await storage.list()).map(({ title }) => title)).toEqual(['Recent']);
    expect(await storage.messages(old.id)).toEqual([]);
  });
});
