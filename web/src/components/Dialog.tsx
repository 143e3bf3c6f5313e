import { X } from 'lucide-preact';
import type { ComponentChildren } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { t } from '../i18n';
import { dialog } from '../state';
import { IconButton } from './IconButton';

/** A modal dialog; the browser keeps the focus inside and gives it back. */
export function Dialog({ title, children }: { title: string; children: ComponentChildren }) {
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => element.current?.showModal(), []);
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: a click beside the dialog does what Esc does
    <dialog
      ref={element}
      class="dialog"
      aria-labelledby="dialog-title"
      onClose={closeDialog}
      onClick={(event) => {
        if (event.target === element.current) element.current?.close();
      }}
    >
      <div class="dialog-body">
        <div class="dialog-head">
          <h2 id="dialog-title">{title}</h2>
          <IconButton icon={X} label={t('close')} onClick={() => element.current?.close()} />
        </div>
        {children}
      </div>
    </dialog>
  );
}

export function closeDialog(): void {
  dialog.value = undefined;
}
