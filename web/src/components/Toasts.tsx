import { X } from 'lucide-preact';
import { t } from '../i18n';
import { dismiss, toasts } from '../state';
import { IconButton } from './IconButton';

export function Toasts() {
  return (
    <div class="toasts" role="status">
      {toasts.value.map(({ id, text, action }) => (
        <div class="toast" key={id}>
          <span>{text}</span>
          {action && (
            <button
              type="button"
              class="button"
              onClick={() => {
                action.run();
                dismiss(id);
              }}
            >
              {action.label}
            </button>
          )}
          <IconButton icon={X} label={t('dismiss')} onClick={() => dismiss(id)} />
        </div>
      ))}
    </div>
  );
}
