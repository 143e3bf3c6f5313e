import { useRef } from 'preact/hooks';
import type { Chat } from '../chat';
import { t } from '../i18n';
import { keyRefused } from '../state';
import { Dialog } from './Dialog';

export function KeyDialog({ chat }: { chat: Chat }) {
  const field = useRef<HTMLInputElement>(null);
  return (
    <Dialog title={t('keyTitle')}>
      <form
        class="key-form"
        onSubmit={(event) => {
          event.preventDefault();
          chat.useKey(field.current?.value.trim() ?? '');
        }}
      >
        <label class="setting">
          <span>{t('keyText')}</span>
          <input ref={field} class="field" type="password" autoComplete="off" aria-label={t('keyTitle')} />
        </label>
        {keyRefused.value && (
          <p class="hint wrong" role="alert">
            {t('keyWrong')}
          </p>
        )}
        <div class="row end">
          <button type="submit" class="button primary">
            {t('done')}
          </button>
        </div>
      </form>
    </Dialog>
  );
}
