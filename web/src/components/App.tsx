import { useEffect } from 'preact/hooks';
import type { Chat } from '../chat';
import { t } from '../i18n';
import { startNew } from '../library';
import { shell } from '../shell';
import { announcements, dialog, live, storageWorks } from '../state';
import { Composer } from './Composer';
import { Header } from './Header';
import { KeyDialog } from './KeyDialog';
import { SettingsDialog } from './SettingsDialog';
import { ShortcutsDialog } from './ShortcutsDialog';
import { Sidebar } from './Sidebar';
import { StatusStrip } from './StatusStrip';
import { Thread } from './Thread';
import { Toasts } from './Toasts';

export function App({ chat }: { chat: Chat }) {
  useEffect(() => {
    const listener = (event: KeyboardEvent) => onKey(event, chat);
    document.addEventListener('keydown', listener);
    return () => document.removeEventListener('keydown', listener);
  }, [chat]);
  return (
    <>
      <a class="skip" href="#message">
        {t('skip')}
      </a>
      <div class="page">
        <Sidebar chat={chat} />
        <main class="main">
          <Header />
          {!storageWorks.value && <p class="notice">{t('storageFailed')}</p>}
          <Thread chat={chat} />
          <div class="bottom">
            {shell.Notices && <shell.Notices />}
            <Composer chat={chat} />
            <StatusStrip />
          </div>
        </main>
      </div>
      <Toasts />
      <div class="hidden" role="log" aria-live="polite" aria-label={t('announcements')}>
        {announcements.value.map(({ id, text }) => (
          <p key={id}>{text}</p>
        ))}
      </div>
      {dialog.value === 'settings' && <SettingsDialog />}
      {dialog.value === 'model' && <shell.ModelDialog />}
      {dialog.value === 'shortcuts' && <ShortcutsDialog />}
      {dialog.value === 'key' && <KeyDialog chat={chat} />}
    </>
  );
}

export function focusMessage(): void {
  document.getElementById('message')?.focus();
}

function onKey(event: KeyboardEvent, chat: Chat): void {
  const command = event.ctrlKey || event.metaKey;
  const typing = event.target instanceof Element && event.target.matches('input, textarea, select');
  if (event.key === 'Escape' && live.value !== undefined && dialog.value === undefined) chat.stop();
  else if (command && event.shiftKey && event.key.toLowerCase() === 'o') act(event, newChat);
  else if (command && !event.shiftKey && event.key.toLowerCase() === 'k') act(event, focusSearch);
  else if (command && event.key === ',') act(event, () => open('settings'));
  else if (event.key === '?' && !typing && !command) act(event, () => open('shortcuts'));
}

function act(event: KeyboardEvent, action: () => void): void {
  event.preventDefault();
  action();
}

function open(name: 'settings' | 'shortcuts'): void {
  if (dialog.value === undefined) dialog.value = name;
}

function newChat(): void {
  startNew();
  focusMessage();
}

function focusSearch(): void {
  document.dispatchEvent(new CustomEvent('pocketglm-search'));
}
