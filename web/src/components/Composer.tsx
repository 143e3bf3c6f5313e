import { ArrowUp, Square } from 'lucide-preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Chat } from '../chat';
import { t } from '../i18n';
import { current, editing, live, messages } from '../state';

const MAX_HEIGHT = 240; // pixels; longer messages scroll

export function Composer({ chat }: { chat: Chat }) {
  const field = useRef<HTMLTextAreaElement>(null);
  const [empty, setEmpty] = useState(true);
  // Opening a conversation puts the cursor here; not on a touch screen, where it would raise the keyboard.
  useEffect(() => {
    if (matchMedia('(hover: hover)').matches) field.current?.focus();
  }, [current.value?.id]);
  const changed = () => {
    if (field.current !== null) fit(field.current);
    setEmpty(field.current?.value.trim() === '');
  };
  const send = () => {
    if (live.value !== undefined || field.current === null || field.current.value.trim() === '') return;
    const text = field.current.value;
    field.current.value = '';
    changed();
    void chat.send(text);
  };
  const onKey = (event: KeyboardEvent) => {
    // An input method for Chinese takes Enter to choose a word.
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === 'Enter' && !event.shiftKey) {
      event.preventDefault();
      send();
    } else if (event.key === 'ArrowUp' && field.current?.value === '') {
      editLast();
    }
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <textarea
        ref={field}
        id="message"
        dir="auto"
        rows={1}
        aria-label={t('messageLabel')}
        placeholder={t('messagePlaceholder')}
        onInput={changed}
        onKeyDown={onKey}
      />
      {live.value === undefined ? (
        <button type="submit" class="send" aria-label={t('send')} title={t('send')} disabled={empty}>
          <ArrowUp size={20} aria-hidden="true" />
        </button>
      ) : (
        <button
          type="button"
          class="send stop"
          aria-label={t('stop')}
          title={t('stop')}
          onClick={() => chat.stop()}
        >
          <Square size={16} aria-hidden="true" fill="currentColor" />
        </button>
      )}
    </form>
  );
}

function fit(field: HTMLTextAreaElement): void {
  field.style.height = 'auto';
  field.style.height = `${Math.min(field.scrollHeight, MAX_HEIGHT)}px`;
}

function editLast(): void {
  const last = messages.value.findLast((message) => message.role === 'user');
  if (last !== undefined && live.value === undefined) editing.value = last.id;
}
