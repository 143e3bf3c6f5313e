import { Pencil, Trash2 } from 'lucide-preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { IconButton } from '../../components/IconButton';
import { formatBytes, formatNumber, t } from '../../i18n';
import type { Models } from '../models';
import { p } from '../texts';
import type { Package, Plan } from '../values';

interface Props {
  found: Package;
  models: Models;
}

/** One model: what it is, how it would run, and what can be done with it. */
export function PackageItem({ found, models }: Props) {
  const [asking, setAsking] = useState<'rename' | 'delete' | undefined>(undefined);
  const done = () => setAsking(undefined);
  const chosen = models.chosen.value?.id === found.id;
  return (
    <li class={chosen ? 'package chosen' : 'package'}>
      {asking === 'rename' ? (
        <RenamePackage found={found} models={models} onDone={done} />
      ) : (
        <div class="row">
          <h3 class="package-name">{found.name}</h3>
          <IconButton
            icon={Pencil}
            label={p('renameModel', { name: found.name })}
            onClick={() => setAsking('rename')}
          />
          <IconButton
            icon={Trash2}
            label={p('deleteModel', { name: found.name })}
            onClick={() => setAsking('delete')}
          />
        </div>
      )}
      <Description found={found} plan={models.plans.value.get(found.id)} />
      {asking === 'delete' && <DeletePackage found={found} models={models} onDone={done} />}
      {asking === undefined && found.complete && <Use found={found} models={models} chosen={chosen} />}
    </li>
  );
}

function Description({ found, plan }: { found: Package; plan: Plan | undefined }) {
  const bytes = formatBytes(found.bytes);
  if (!found.complete)
    return <p class="hint">{p('importAgain', { copied: formatBytes(found.copied), bytes })}</p>;
  return (
    <p class="hint">
      {found.family} · {p('size', { bytes, blocks: formatNumber(found.blocks) })}
      {plan !== undefined && (
        <>
          <br />
          <span class={plan.fits ? '' : 'wrong'}>{planText(plan)}</span>
        </>
      )}
    </p>
  );
}

function planText(plan: Plan): string {
  const key = !plan.fits ? 'planTooLarge' : plan.streamed ? 'planStreamed' : 'planFits';
  return p(key, {
    context: formatNumber(plan.context),
    memory: formatBytes(plan.anonymous),
    needed: formatBytes(plan.needed),
    free: formatBytes(plan.free),
  });
}

function Use({ found, models, chosen }: Props & { chosen: boolean }) {
  const runs = chosen && models.phase.value === 'ready';
  return (
    <div class="row end">
      {runs && <span class="hint in-use">{p('inUse')}</span>}
      {chosen && models.phase.value !== 'failed' ? (
        <button type="button" class="button" onClick={() => void models.leave()}>
          {p('stopModel')}
        </button>
      ) : (
        <button
          type="button"
          class="button primary"
          aria-label={`${p('use')}: ${found.name}`}
          onClick={() => void models.start(found)}
        >
          {p('use')}
        </button>
      )}
    </div>
  );
}

function RenamePackage({ found, models, onDone }: Props & { onDone: () => void }) {
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.select(), []);
  const save = () => {
    const name = field.current?.value.trim() ?? '';
    if (name !== '' && name !== found.name) void models.rename(found, name);
    onDone();
  };
  return (
    <form
      class="row"
      onSubmit={(event) => {
        event.preventDefault();
        save();
      }}
    >
      <input
        ref={field}
        class="field"
        maxLength={80}
        aria-label={p('renameModel', { name: found.name })}
        defaultValue={found.name}
        onKeyDown={(event) => {
          if (event.key !== 'Escape' || event.isComposing) return;
          event.preventDefault(); // or the dialog would close, too
          onDone();
        }}
      />
      <button type="submit" class="button">
        {t('save')}
      </button>
    </form>
  );
}

function DeletePackage({ found, models, onDone }: Props & { onDone: () => void }) {
  const keep = useRef<HTMLButtonElement>(null);
  useEffect(() => keep.current?.focus(), []);
  const bytes = formatBytes(found.complete ? found.bytes : found.copied);
  return (
    <fieldset class="package-delete">
      <legend>{p('deleteAsk', { name: found.name, bytes })}</legend>
      <div class="row end">
        <button ref={keep} type="button" class="button" onClick={onDone}>
          {t('cancel')}
        </button>
        <button
          type="button"
          class="button danger"
          onClick={() => {
            onDone();
            void models.delete(found);
          }}
        >
          {t('delete')}
        </button>
      </div>
    </fieldset>
  );
}
