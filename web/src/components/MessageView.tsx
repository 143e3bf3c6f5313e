import { Copy, Pencil, RefreshCw } from 'lucide-preact';
import { memo } from 'preact/compat';
import { useLayoutEffect, useRef } from 'preact/hooks';
import type { Chat } from '../chat';
import { type Message, splitThinking } from '../conversation';
import { formatNumber, language, t } from '../i18n';
import { editing, live } from '../state';
import { copyText } from './copying';
import { IconButton } from './IconButton';
import { MarkdownView } from './MarkdownView';

interface Props {
  message: Message;
  chat: Chat;
}

export const QuestionView = memo(function QuestionView({ message, chat }: Props) {
  if (editing.value === message.id) return <QuestionEditor message={message} chat={chat} />;
  return (
    <article class="message question" aria-label={t('you')}>
      <div class="bubble" dir="auto">
        {message.text}
      </div>
      <div class="actions">
        <IconButton icon={Copy} label={t('copy')} onClick={() => void copyText(message.text)} />
        <IconButton
          icon={Pencil}
          label={t('edit')}
          disabled={live.value !== undefined}
          onClick={() => {
            editing.value = message.id;
          }}
        />
      </div>
    </article>
  );
});

function QuestionEditor({ message, chat }: Props) {
  const field = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => field.current?.focus(), []);
  const close = () => {
    editing.value = undefined;
    document.getElementById('message')?.focus();
  };
  const send = () => {
    const text = field.current?.value ?? '';
    close();
    void chat.resend(message.id, text);
  };
  return (
    <article class="message question editing" aria-label={t('you')}>
      <textarea
        ref={field}
        class="field"
        aria-label={t('editLabel')}
        rows={4}
        defaultValue={message.text}
        onKeyDown={(event) => {
          if (event.isComposing) return;
          if (event.key === 'Escape') close();
          if (event.key === 'Enter' && !event.shiftKey) {
            event.preventDefault();
            send();
          }
        }}
      />
      <div class="row end">
        <button type="button" class="button" onClick={close}>
          {t('cancel')}
        </button>
        <button type="button" class="button primary" onClick={send}>
          {t('resend')}
        </button>
      </div>
    </article>
  );
}

interface AnswerProps extends Props {
  writing: boolean;
  last: boolean;
  eager: boolean;
}

export const AnswerView = memo(function AnswerView({ message, chat, writing, last, eager }: AnswerProps) {
  const { thinking, thinkingDone, text } = splitThinking(message.text);
  return (
    <article class="message answer" aria-label={t('assistant')} aria-busy={writing}>
      {thinking !== '' && (
        <details class="thinking">
          <summary>{t(thinkingDone ? 'thought' : 'thinking')}</summary>
          <div class="plain">{thinking.trim()}</div>
        </details>
      )}
      {writing && message.text === '' && <p class="waiting quiet">{t('waiting')}</p>}
      <MarkdownView key={language.value} text={text} done={!writing} eager={eager} />
      <Ending message={message} />
      {!writing && (
        <div class="actions">
          <IconButton icon={Copy} label={t('copy')} onClick={() => void copyText(text)} />
          {last && (
            <IconButton
              icon={RefreshCw}
              label={t(message.ending === 'failed' ? 'retry' : 'regenerate')}
              disabled={live.value !== undefined}
              onClick={() => void chat.regenerate(message.id)}
            />
          )}
          <Figures message={message} />
        </div>
      )}
    </article>
  );
});

function Ending({ message }: { message: Message }) {
  if (message.ending === 'failed') {
    return (
      <p class="ending failed" role="alert">
        {t('endedFailed', { reason: message.error ?? '' })}
      </p>
    );
  }
  if (message.ending === 'stopped') return <p class="ending">{t('endedStopped')}</p>;
  if (message.ending === 'length') return <p class="ending">{t('endedLength')}</p>;
  return null;
}

function Figures({ message }: { message: Message }) {
  const figures = message.figures;
  if (figures === undefined) return null;
  const count = formatNumber(figures.completionTokens);
  if (figures.tokensPerSecond === undefined) return <span class="figures">{t('tokens', { count })}</span>;
  const rate = formatNumber(figures.tokensPerSecond, 1);
  const values = { count, rate, reused: figures.reusedTokens ?? 0, prompt: figures.promptTokens };
  return <span class="figures">{t(figures.reusedTokens ? 'figuresReused' : 'figures', values)}</span>;
}
