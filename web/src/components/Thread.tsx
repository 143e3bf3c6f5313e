import { ArrowDown } from 'lucide-preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Chat } from '../chat';
import { type TextKey, t } from '../i18n';
import { shell } from '../shell';
import { current, live, messages, status } from '../state';
import { IconButton } from './IconButton';
import { AnswerView, QuestionView } from './MessageView';

const EAGER = 10; // messages at the end whose Markdown is rendered at once
const NEAR_END = 60; // pixels from the end that still count as the end

export function Thread({ chat }: { chat: Chat }) {
  const frame = useRef<HTMLDivElement>(null);
  const [atEnd, toEnd] = useStickyEnd(frame, current.value?.id);
  const list = messages.value;
  const liveId = live.value?.messageId;
  return (
    <div class="thread-frame">
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolling region must be reachable by keyboard */}
      <section class="thread" ref={frame} tabIndex={0} aria-label={t('messages')}>
        <div class="column">
          {list.length === 0 && <EmptyThread chat={chat} />}
          {list.map((message, index) =>
            message.role === 'user' ? (
              <QuestionView key={message.id} message={message} chat={chat} />
            ) : (
              <AnswerView
                key={message.id}
                message={message}
                chat={chat}
                writing={message.id === liveId}
                last={index === list.length - 1}
                eager={index >= list.length - EAGER}
              />
            ),
          )}
        </div>
      </section>
      {!atEnd && (
        <div class="to-end">
          <IconButton icon={ArrowDown} label={t('scrollDown')} onClick={toEnd} />
        </div>
      )}
    </div>
  );
}

/** Keeps the end in view while the reader is there; scrolling up lets go. */
function useStickyEnd(
  frame: { current: HTMLDivElement | null },
  key: string | undefined,
): [boolean, () => void] {
  const sticks = useRef(true);
  const [atEnd, setAtEnd] = useState(true);
  const toEnd = () => {
    sticks.current = true;
    frame.current?.scrollTo({ top: frame.current.scrollHeight });
  };
  useEffect(toEnd, [key]);
  useEffect(() => {
    const element = frame.current;
    const column = element?.firstElementChild;
    if (!element || !column) return;
    const observer = new ResizeObserver(() => sticks.current && toEnd());
    observer.observe(column);
    observer.observe(element);
    const onScroll = () => {
      sticks.current = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR_END;
      setAtEnd(sticks.current);
    };
    element.addEventListener('scroll', onScroll, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener('scroll', onScroll);
    };
  }, []);
  return [atEnd, toEnd];
}

const SUGGESTIONS: TextKey[] = ['suggestion1', 'suggestion2', 'suggestion3'];

function EmptyThread({ chat }: { chat: Chat }) {
  const plain = status.value !== undefined && !status.value.template;
  const host = chat.remoteHost;
  if (shell.Welcome && shell.needsWelcome?.()) return <shell.Welcome />;
  return (
    <div class="empty">
      <h2>{t('emptyTitle')}</h2>
      <p class="quiet">
        {plain ? t('notTuned') : host === undefined ? t('emptyText') : t('emptyRemote', { host })}
      </p>
      <ul class="suggestions">
        {SUGGESTIONS.map((key) => (
          <li key={key}>
            <button type="button" class="suggestion" onClick={() => void chat.send(t(key))}>
              {t(key)}
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}
