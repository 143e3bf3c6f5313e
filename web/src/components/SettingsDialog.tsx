import { useState } from 'preact/hooks';
import type { Settings } from '../conversation';
import { type TextKey, t } from '../i18n';
import { changeSettings, useForNew } from '../library';
import { FIELDS, type Field, PRESETS, type PresetName, parseField, presetOf, withPreset } from '../settings';
import { settings, status } from '../state';
import { closeDialog, Dialog } from './Dialog';

const PRESET_TEXTS: Record<PresetName, TextKey> = {
  model: 'presetModel',
  precise: 'presetPrecise',
  balanced: 'presetBalanced',
  creative: 'presetCreative',
};

export function SettingsDialog() {
  const chosen = settings.value;
  const preset = presetOf(chosen);
  return (
    <Dialog title={t('settings')}>
      <p class="quiet">{t('settingsScope')}</p>
      <label class="setting">
        <span>{t('system')}</span>
        <textarea
          class="field"
          rows={3}
          aria-describedby="hint-system"
          value={chosen.system}
          onChange={(event) => void changeSettings({ ...chosen, system: event.currentTarget.value })}
        />
        <span class="hint" id="hint-system">
          {t('systemHint')}
        </span>
      </label>
      <fieldset class="presets">
        <legend>{t('preset')}</legend>
        {(Object.keys(PRESETS) as PresetName[]).map((name) => (
          <button
            type="button"
            key={name}
            class="button"
            aria-pressed={preset === name}
            onClick={() => void changeSettings(withPreset(chosen, name))}
          >
            {t(PRESET_TEXTS[name])}
          </button>
        ))}
      </fieldset>
      <div class="settings-grid">
        {FIELDS.map((field) => (
          <NumberField key={field.name} field={field} settings={chosen} />
        ))}
      </div>
      <div class="row end">
        <button type="button" class="button" onClick={() => useForNew(chosen)}>
          {t('settingsDefault')}
        </button>
        <button type="button" class="button primary" onClick={closeDialog}>
          {t('done')}
        </button>
      </div>
    </Dialog>
  );
}

function NumberField({ field, settings: chosen }: { field: Field; settings: Settings }) {
  const [wrong, setWrong] = useState(false);
  const hint = `hint-${field.name}`;
  const standard = status.value?.samplingDefaults[field.name];
  const change = (text: string) => {
    const value = parseField(field, text);
    setWrong(value === undefined && text.trim() !== '');
    const { [field.name]: _, ...others } = chosen;
    if (value !== undefined) void changeSettings({ ...others, [field.name]: value });
    else if (text.trim() === '') void changeSettings(others);
  };
  return (
    <label class="setting">
      <span>{t(field.name)}</span>
      <input
        class="field"
        type="number"
        inputMode="decimal"
        min={field.min}
        max={field.max}
        step={field.step}
        value={chosen[field.name] ?? ''}
        placeholder={standard === undefined ? '' : String(standard)}
        aria-describedby={hint}
        aria-invalid={wrong}
        onChange={(event) => change(event.currentTarget.value)}
      />
      <span class={wrong ? 'hint wrong' : 'hint'} id={hint}>
        {wrong ? t('outOfRange', { min: field.min, max: field.max }) : t(`${field.name}Hint`)}
      </span>
    </label>
  );
}
