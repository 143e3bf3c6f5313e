import { useEffect } from 'preact/hooks';
import { Dialog } from '../../components/Dialog';
import { ModelFacts } from '../../components/ModelDialog';
import { formatBytes, formatNumber } from '../../i18n';
import type { Models } from '../models';
import { reasonOf } from '../reasons';
import { p } from '../texts';
import type { EngineChoice } from '../values';
import { ImportButtons, ImportProgress } from './Importing';
import { PackageItem } from './PackageItem';

/** The models on the phone: use, add, rename, delete; how the engine runs them; figures of the one in use. */
export function ModelsDialog({ models }: { models: Models }) {
  useEffect(() => void models.refresh(), [models]);
  const device = models.device.value;
  const failure = models.failure.value;
  const problem = models.problem.value;
  return (
    <Dialog title={p('models')}>
      <ul class="packages">
        {models.packages.value.map((found) => (
          <PackageItem key={found.id} found={found} models={models} />
        ))}
      </ul>
      {failure !== undefined && (
        <p class="hint wrong" role="alert">
          {p('failed', { name: models.chosen.value?.name ?? '', reason: reasonOf(failure) })}
        </p>
      )}
      {problem !== undefined && (
        <p class="hint wrong" role="alert">
          {reasonOf(problem)}
        </p>
      )}
      <ImportButtons models={models} />
      <ImportProgress models={models} />
      {device !== undefined && (
        <p class="hint">
          {p('device', {
            free: formatBytes(device.freeMemory),
            total: formatBytes(device.totalMemory),
            storage: formatBytes(device.freeStorage),
          })}
        </p>
      )}
      <EngineSettings models={models} />
      {models.running.value !== undefined && (
        <details class="more">
          <summary>{p('details')}</summary>
          <ModelFacts />
        </details>
      )}
    </Dialog>
  );
}

const CONTEXTS = [512, 1024, 2048, 4096, 8192, 16384, 32768];

function EngineSettings({ models }: { models: Models }) {
  const choice = models.choice.value;
  const longest = Math.max(0, ...models.packages.value.map(({ contextLength }) => contextLength));
  const contexts = CONTEXTS.filter((size) => size <= longest);
  const threads = Array.from({ length: models.device.value?.cores ?? 0 }, (_, index) => index + 1);
  return (
    <details class="more">
      <summary>{p('engineChoice')}</summary>
      <p class="hint">{p('engineChoiceHint')}</p>
      <div class="settings-grid">
        <Choice
          label={p('contextChoice')}
          value={String(choice.context ?? '')}
          options={contexts.map((size) => [String(size), formatNumber(size)])}
          onChange={(value) => models.choose({ ...choice, context: whole(value) })}
        />
        <Choice
          label={p('kvChoice')}
          value={choice.kv ?? ''}
          options={[
            ['float16', p('kvFloat16')],
            ['int8', p('kvInt8')],
          ]}
          onChange={(value) => models.choose({ ...choice, kv: value as EngineChoice['kv'] })}
        />
        <Choice
          label={p('threadsChoice')}
          value={String(choice.threads ?? '')}
          options={threads.map((count) => [String(count), formatNumber(count)])}
          onChange={(value) => models.choose({ ...choice, threads: whole(value) })}
        />
      </div>
    </details>
  );
}

function whole(value: string | undefined): number | undefined {
  return value === undefined ? undefined : Number(value);
}

interface ChoiceProps {
  label: string;
  value: string;
  options: [string, string][];
  onChange: (value: string | undefined) => void;
}

/** A choice whose first entry leaves it to the app. */
function Choice({ label, value, options, onChange }: ChoiceProps) {
  return (
    <label class="setting">
      <span>{label}</span>
      <select
        class="field"
        value={value}
        onChange={(event) => onChange(event.currentTarget.value || undefined)}
      >
        <option value="">{p('automatic')}</option>
        {options.map(([name, text]) => (
          <option key={name} value={name}>
            {text}
          </option>
        ))}
      </select>
    </label>
  );
}
