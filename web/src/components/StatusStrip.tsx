import { formatBytes, formatNumber, t } from '../i18n';
import { shell } from '../shell';
import { contextUsed, dialog, live, messages, reachable, status } from '../state';
import { BlockStrip } from './BlockStrip';

/** One quiet line under the message field: speed, context, memory, blocks. */
export function StatusStrip() {
  const known = status.value;
  if (!reachable.value) return <shell.Offline />;
  if (known === undefined) return <p class="strip" />;
  return (
    <div class="strip">
      <Context total={known.contextLength} />
      <Speed />
      {known.memory.rss > 0 && (
        <span class="strip-item" title={t('memoryResident')}>
          <span class="only-wide">{t('memory')}</span> {formatBytes(known.memory.rss)}
        </span>
      )}
      <button
        type="button"
        class="strip-blocks"
        aria-label={t('modelDetails')}
        title={t('modelDetails')}
        aria-haspopup="dialog"
        onClick={() => {
          dialog.value = 'model';
        }}
      >
        <BlockStrip blocks={known.blocks} />
      </button>
    </div>
  );
}

function Context({ total }: { total: number }) {
  const used = contextUsed.value;
  const values = { used: formatNumber(used), total: formatNumber(total) };
  return (
    <span class="strip-item context">
      <progress
        class={total > 0 && used / total > 0.9 ? 'nearly-full' : ''}
        aria-label={t('contextLabel')}
        max={Math.max(total, 1)}
        value={Math.min(used, total)}
      />
      <span>{t('contextUsed', values)}</span>
    </span>
  );
}

function Speed() {
  const rate =
    live.value?.rate ?? messages.value.findLast((message) => message.figures)?.figures?.tokensPerSecond;
  if (!rate) return null;
  return <span class="strip-item speed">{t('speed', { rate: formatNumber(rate, 1) })}</span>;
}
