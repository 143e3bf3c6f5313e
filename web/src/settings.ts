// Sampling settings: their fields and limits, presets, and the defaults of new conversations.

import type { Settings } from './conversation';
import type { Sampling } from './transport';

export interface Field {
  name: keyof Sampling;
  min: number;
  max: number;
  step: number;
}

export const FIELDS: Field[] = [
  { name: 'temperature', min: 0, max: 2, step: 0.05 },
  { name: 'top_p', min: 0.01, max: 1, step: 0.01 },
  { name: 'top_k', min: 0, max: 1000, step: 1 },
  { name: 'min_p', min: 0, max: 1, step: 0.01 },
  { name: 'repetition_penalty', min: 0.5, max: 2, step: 0.01 },
  { name: 'max_tokens', min: 1, max: 131072, step: 1 },
  { name: 'seed', min: 0, max: 4294967295, step: 1 },
];

export type PresetName = 'model' | 'precise' | 'balanced' | 'creative';

/** `model` leaves everything to the model's own defaults. */
export const PRESETS: Record<PresetName, Sampling> = {
  model: {},
  precise: { temperature: 0 },
  balanced: { temperature: 0.7, top_p: 0.9 },
  creative: { temperature: 1, top_p: 0.95, min_p: 0.05 },
};

const DEFAULTS = 'pocketglm.settings';

/** A number for a field, or undefined where the text is empty or outside the limits. */
export function parseField(field: Field, text: string): number | undefined {
  const value = text.trim() === '' ? Number.NaN : Number(text);
  const whole = field.step !== 1 || Number.isInteger(value);
  return whole && value >= field.min && value <= field.max ? value : undefined;
}

/** Settings of any origin (storage, an imported file): fields that are not valid are left out. */
export function settingsFrom(value: unknown): Settings {
  const source = typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  const settings: Settings = { system: typeof source.system === 'string' ? source.system : '' };
  for (const field of FIELDS) {
    const number =
      typeof source[field.name] === 'number' ? parseField(field, String(source[field.name])) : undefined;
    if (number !== undefined) settings[field.name] = number;
  }
  return settings;
}

/** The sampling fields of settings, as a request carries them. */
export function samplingOf(settings: Settings): Sampling {
  const { system: _, ...sampling } = settings;
  return sampling;
}

/** Which preset these settings are, or undefined where they are none. */
export function presetOf(settings: Settings): PresetName | undefined {
  const same = (preset: Sampling) =>
    FIELDS.filter(({ name }) => name !== 'max_tokens' && name !== 'seed').every(
      ({ name }) => preset[name] === settings[name],
    );
  return (Object.keys(PRESETS) as PresetName[]).find((name) => same(PRESETS[name]));
}

/** Settings with a preset's sampling; the system prompt, the length and the seed stay. */
export function withPreset(settings: Settings, name: PresetName): Settings {
  const { system, max_tokens, seed } = settings;
  const kept = {
    ...(max_tokens === undefined ? {} : { max_tokens }),
    ...(seed === undefined ? {} : { seed }),
  };
  return { system, ...PRESETS[name], ...kept };
}

export function loadDefaults(): Settings {
  try {
    return settingsFrom(JSON.parse(localStorage.getItem(DEFAULTS) ?? '{}'));
  } catch {
    return settingsFrom({});
  }
}

export function saveDefaults(settings: Settings): void {
  localStorage.setItem(DEFAULTS, JSON.stringify(settings));
}
