import { Download, Pencil, Trash2 } from 'lucide-preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Chat } from '../chat';
import type { Conversation } from '../conversation';
import { t } from '../i18n';
import { exportFile, openConversation, remove, rename } from '../library';
import { current, live } from '../state';
import { focusMessage } from './App';
import { IconButton } from './IconButton';

interface Props {
  conversation: Conversation;
  chat: Chat;
}

export function ConversationItem({ conversation, chat }: Props) {
  const [renaming, setRenaming] = useState(false);
  const title = conversation.title || t('untitled');
  const open = current.value?.id === conversation.id;
  if (renaming) return <RenameItem conversation={conversation} onDone={() => setRenaming(false)} />;
  return (
    <li class={open ? 'item current' : 'item'}>
      <button
        type="button"
        class="item-open"
        aria-current={open ? 'page' : undefined}
        title={title}
        onClick={() => void openConversation(conversation.id)}
      >
        {title}
      </button>
      <span class="item-actions">
        <IconButton icon={Pencil} label={t('renameTitle', { title })} onClick={() => setRenaming(true)} />
        <IconButton
          icon={Download}
          label={t('exportTitle', { title })}
          onClick={() => void exportFile(conversation)}
        />
        <IconButton
          icon={Trash2}
          label={t('deleteTitle', { title })}
          onClick={() => {
            if (live.value?.conversationId === conversation.id) chat.stop();
            void remove(conversation);
            focusMessage();
          }}
        />
      </span>
    </li>
  );
}

function RenameItem({ conversation, onDone }: { conversation: Conversation; onDone: () => void }) {
  const field = useRef<HTMLInputElement>(null);
  const cancelled = useRef(false);
  useEffect(() => field.current?.select(), []);
  const finish = () => {
    if (!cancelled.current) void rename(conversation, field.current?.value ?? '');
    onDone();
  };
  return (
    <li class="item">
      <input
        ref={field}
        class="field"
        aria-label={t('renameTitle', { title: conversation.title })}
        defaultValue={conversation.title}
        onBlur={finish}
        onKeyDown={(event) => {
          if (event.isComposing) return;
          if (event.key === 'Escape') cancelled.current = true;
          if (event.key === 'Enter' || event.key === 'Escape') {
            event.stopPropagation();
            event.currentTarget.blur();
            focusMessage();
          }
        }}
      />
    </li>
  );
}
