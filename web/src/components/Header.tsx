import { PanelLeft, Settings2 } from 'lucide-preact';
import { t } from '../i18n';
import { shell } from '../shell';
import { current, dialog, listOpen } from '../state';
import { IconButton } from './IconButton';

export function Header() {
  const model = shell.modelName();
  return (
    <header class="header">
      <span class="only-narrow">
        <IconButton icon={PanelLeft} label={t('openList')} onClick={openList} expanded={listOpen.value} />
      </span>
      <h1 class="header-title">{current.value?.title || t('newChat')}</h1>
      {model && (
        <button
          type="button"
          class="chip"
          aria-label={`${t('modelDetails')}: ${model}`}
          aria-haspopup="dialog"
          onClick={() => {
            dialog.value = 'model';
          }}
        >
          {model}
        </button>
      )}
      <IconButton
        icon={Settings2}
        label={t('settings')}
        onClick={() => {
          dialog.value = 'settings';
        }}
      />
    </header>
  );
}

function openList(): void {
  listOpen.value = true;
  requestAnimationFrame(() => document.querySelector<HTMLElement>('.sidebar button')?.focus());
}
