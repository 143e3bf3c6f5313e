import { FileArchive, FolderOpen } from 'lucide-preact';
import { IconButton } from '../../components/IconButton';
import { formatBytes, t } from '../../i18n';
import type { Models } from '../models';
import { reasonOf } from '../reasons';
import { p } from '../texts';

/** The two ways to add a model, and what went wrong with the last one. */
export function ImportButtons({ models }: { models: Models }) {
  const failure = models.importFailure.value;
  return (
    <div class="import">
      {models.importing.value === undefined && (
        <div class="row import-ways">
          <IconButton icon={FileArchive} label={p('importZip')} text onClick={() => void models.add('zip')} />
          <IconButton
            icon={FolderOpen}
            label={p('importFolder')}
            text
            onClick={() => void models.add('folder')}
          />
        </div>
      )}
      {failure !== undefined && (
        <p class="hint wrong" role="alert">
          {reasonOf(failure)}
        </p>
      )}
    </div>
  );
}

/** Nothing while no model is being added. */
export function ImportProgress({ models }: { models: Models }) {
  const importing = models.importing.value;
  if (importing === undefined) return null;
  const { bytes, total, file } = importing;
  return (
    <section class="import-progress" aria-label={p('importRuns')}>
      <div class="row">
        <span class="import-title">{p('importRuns')}</span>
        {total > 0 && (
          <span class="quiet">
            {p('importProgress', { bytes: formatBytes(bytes), total: formatBytes(total) })}
          </span>
        )}
        <button type="button" class="button" onClick={() => void models.cancelImport()}>
          {t('cancel')}
        </button>
      </div>
      <progress aria-label={p('importRuns')} max={Math.max(total, 1)} value={bytes} />
      <p class="hint">{file || p('importCheck')}</p>
    </section>
  );
}
