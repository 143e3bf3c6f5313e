import { Download, Keyboard, Plus, Upload, X } from 'lucide-preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Chat } from '../chat';
import type { Conversation } from '../conversation';
import { chooseLanguage, LANGUAGE_NAMES, type Language, language, type TextKey, t } from '../i18n';
import { exportFile, importFile, search, startNew } from '../library';
import { shell } from '../shell';
import { conversations, dialog, listOpen } from '../state';
import { chooseTheme, THEMES, type Theme, theme } from '../theme';
import { focusMessage } from './App';
import { ConversationItem } from './ConversationItem';
import { IconButton } from './IconButton';

const SEARCH_MILLISECONDS = 150;

export function Sidebar({ chat }: { chat: Chat }) {
  const [found, setWords, words] = useSearch();
  const list = conversations.value;
  const shown = found === undefined ? list : list.filter(({ id }) => found.has(id));
  return (
    <>
      {listOpen.value && (
        <button type="button" class="shade" tabIndex={-1} aria-label={t('closeList')} onClick={close} />
      )}
      <nav
        class={listOpen.value ? 'sidebar open' : 'sidebar'}
        aria-label={t('conversations')}
        onKeyDown={onKey}
      >
        <div class="sidebar-top">
          <IconButton icon={Plus} label={t('newChat')} text onClick={newChat} />
          <span class="only-narrow">
            <IconButton icon={X} label={t('closeList')} onClick={close} />
          </span>
        </div>
        <SearchField words={words} onWords={setWords} />
        <div class="list">
          {list.length === 0 && <p class="quiet">{t('noConversations')}</p>}
          {list.length > 0 && shown.length === 0 && <p class="quiet">{t('nothingFound')}</p>}
          {grouped(shown).map(([name, group]) => (
            <section key={name} aria-label={t(name)}>
              <h2 class="list-head">{t(name)}</h2>
              <ul>
                {group.map((conversation) => (
                  <ConversationItem key={conversation.id} conversation={conversation} chat={chat} />
                ))}
              </ul>
            </section>
          ))}
        </div>
        <SidebarFoot />
      </nav>
    </>
  );
}

function onKey(event: KeyboardEvent): void {
  if (event.key === 'Escape' && listOpen.value) close();
}

function close(): void {
  listOpen.value = false;
  focusMessage();
}

function newChat(): void {
  startNew();
  focusMessage();
}

function useSearch(): [Set<string> | undefined, (words: string) => void, string] {
  const [words, setWords] = useState('');
  const [found, setFound] = useState<Set<string> | undefined>(undefined);
  useEffect(() => {
    if (words.trim() === '') {
      setFound(undefined);
      return;
    }
    let wanted = true;
    const run = async () => {
      const result = await search(words.trim());
      if (wanted) setFound(result);
    };
    const timer = setTimeout(() => void run(), SEARCH_MILLISECONDS);
    return () => {
      wanted = false;
      clearTimeout(timer);
    };
  }, [words]);
  return [found, setWords, words];
}

function SearchField({ words, onWords }: { words: string; onWords: (words: string) => void }) {
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const focus = () => {
      listOpen.value = matchMedia('(max-width: 760px)').matches;
      field.current?.focus();
      // The drawer of a narrow screen can take the focus only once it is shown.
      if (listOpen.value) requestAnimationFrame(() => field.current?.focus());
    };
    document.addEventListener('pocketglm-search', focus);
    return () => document.removeEventListener('pocketglm-search', focus);
  }, []);
  return (
    <input
      ref={field}
      class="field search"
      type="search"
      aria-label={t('searchConversations')}
      placeholder={t('search')}
      value={words}
      onInput={(event) => onWords(event.currentTarget.value)}
    />
  );
}

function SidebarFoot() {
  const file = useRef<HTMLInputElement>(null);
  const take = async () => {
    const chosen = file.current?.files?.[0];
    if (chosen !== undefined) await importFile(chosen);
    if (file.current !== null) file.current.value = '';
  };
  return (
    <div class="sidebar-foot">
      <div class="row">
        <IconButton icon={Upload} label={t('import')} text onClick={() => file.current?.click()} />
        <IconButton
          icon={Download}
          label={t('exportAll')}
          text
          disabled={conversations.value.length === 0}
          onClick={() => void exportFile()}
        />
        <input
          ref={file}
          type="file"
          class="hidden"
          accept="application/json,.json"
          hidden
          onChange={() => void take()}
        />
      </div>
      <div class="row">
        <select
          class="field small"
          aria-label={t('theme')}
          value={theme.value}
          onChange={(event) => chooseTheme(event.currentTarget.value as Theme)}
        >
          {THEMES.map((name) => (
            <option key={name} value={name}>
              {t(themeText(name))}
            </option>
          ))}
        </select>
        <select
          class="field small"
          aria-label={t('language')}
          value={language.value}
          onChange={(event) => chooseLanguage(event.currentTarget.value as Language)}
        >
          {Object.entries(LANGUAGE_NAMES).map(([name, text]) => (
            <option key={name} value={name} lang={name}>
              {text}
            </option>
          ))}
        </select>
        {shell.keyboard && (
          <IconButton
            icon={Keyboard}
            label={t('shortcuts')}
            onClick={() => {
              dialog.value = 'shortcuts';
            }}
          />
        )}
      </div>
    </div>
  );
}

function themeText(name: Theme): TextKey {
  const texts: Record<Theme, TextKey> = { system: 'themeSystem', light: 'themeLight', dark: 'themeDark' };
  return texts[name];
}

const DAY = 86_400_000;

/** Conversations by age, the latest first; empty groups are left out. */
function grouped(list: Conversation[]): [TextKey, Conversation[]][] {
  const today = new Date().setHours(0, 0, 0, 0);
  const bounds: [TextKey, number][] = [
    ['today', today],
    ['yesterday', today - DAY],
    ['week', today - 7 * DAY],
    ['earlier', Number.NEGATIVE_INFINITY],
  ];
  const groups = new Map<TextKey, Conversation[]>();
  for (const conversation of list) {
    const name = bounds.find(([, start]) => conversation.updated >= start)?.[0] ?? 'earlier';
    groups.set(name, [...(groups.get(name) ?? []), conversation]);
  }
  return [...groups];
}
