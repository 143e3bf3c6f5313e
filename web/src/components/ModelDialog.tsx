import { formatBytes, formatNumber, t } from '../i18n';
import { status } from '../state';
import { BlockStrip, nameOf, runsOf } from './BlockStrip';
import { Dialog } from './Dialog';

export function ModelDialog() {
  if (status.value === undefined) return null;
  return (
    <Dialog title={t('modelDetails')}>
      <ModelFacts />
    </Dialog>
  );
}

/** What the model is, what it needs, and where its blocks run. */
export function ModelFacts() {
  const known = status.value;
  if (known === undefined) return null;
  const { memory, requests } = known;
  const rows: [string, string][] = [
    [t('model'), known.model],
    [t('engine'), known.engine],
    [t('threads'), formatNumber(known.threads)],
    [t('context'), t('tokens', { count: formatNumber(known.contextLength) })],
    [t('memoryResident'), formatBytes(memory.rss)],
    [t('memoryWeights'), formatBytes(memory.weights)],
    [t('memoryCache'), formatBytes(memory.cache)],
    [t('memoryBuffers'), formatBytes(memory.buffers)],
    [t('requests'), t('requestsNow', { running: requests.running, waiting: requests.waiting })],
    [t('version'), known.version],
  ];
  return (
    <>
      <dl class="facts">
        {rows.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      <p class="quiet">{t('memoryNote')}</p>
      <h3>{t('blocks')}</h3>
      <BlockStrip blocks={known.blocks} />
      <p class="quiet">{t('blocksHint')}</p>
      <ul class="runs">
        {runsOf(known.blocks).map(({ first, last, block }) => (
          <li key={first}>
            <span class="cell" data-place={block.place} aria-hidden="true" />
            {first === last ? first : `${first}–${last}`}: {nameOf(block)}
          </li>
        ))}
      </ul>
    </>
  );
}
