// Shows the page inside a shell.

import { effect } from '@preact/signals';
import { render } from 'preact';
import { Chat } from './chat';
import { App } from './components/App';
import { language } from './i18n';
import { openLibrary } from './library';
import { type Shell, setShell } from './shell';
import { current } from './state';
import './styles/base.css';
import './styles/layout.css';
import './styles/message.css';
import './styles/dialog.css';
import { chooseTheme, theme } from './theme';

/** The page is shown as soon as the conversations are read. */
export function showPage(shell: Shell): Chat {
  setShell(shell);
  chooseTheme(theme.value);
  effect(() => {
    document.documentElement.lang = language.value === 'zh' ? 'zh-CN' : 'en';
  });
  effect(() => {
    const title = current.value?.title;
    document.title = title ? `${title} · PocketGLM` : 'PocketGLM';
  });
  const chat = new Chat(shell.transport);
  const root = document.getElementById('app');
  void openLibrary().then(() => {
    if (root !== null) render(<App chat={chat} />, root);
    chat.watchStatus();
  });
  return chat;
}
