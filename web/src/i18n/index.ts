// Texts in the reader's language: the browser's, or the one chosen here.

import { signal } from '@preact/signals';
import { en, type TextKey } from './en';
import { zh } from './zh';

export type { TextKey } from './en';
export type Language = 'en' | 'zh';

export const LANGUAGE_NAMES: Record<Language, string> = { en: 'English', zh: '中文' };
const TEXTS: Record<Language, Record<TextKey, string>> = { en, zh };
const replaced: Record<Language, Partial<Record<TextKey, string>>> = { en: {}, zh: {} };
const CHOICE = 'pocketglm.language';

export const language = signal<Language>(initialLanguage(localStorage.getItem(CHOICE), navigator.languages));

/** The stored choice, else the first of the browser's languages that the page speaks, else English. */
export function initialLanguage(choice: string | null, preferred: readonly string[]): Language {
  if (choice === 'en' || choice === 'zh') return choice;
  const known = preferred
    .map((tag) => tag.slice(0, 2).toLowerCase())
    .find((tag) => tag === 'en' || tag === 'zh');
  return known === 'zh' ? 'zh' : 'en';
}

export function chooseLanguage(name: Language): void {
  localStorage.setItem(CHOICE, name);
  language.value = name;
}

/** Other words for some texts, where the page runs in another place. Before the page is shown. */
export function replaceTexts(texts: Record<Language, Partial<Record<TextKey, string>>>): void {
  Object.assign(replaced.en, texts.en);
  Object.assign(replaced.zh, texts.zh);
}

/** A text; reading it inside a component subscribes the component to the language. */
export function t(key: TextKey, values: Record<string, string | number> = {}): string {
  return filled(replaced[language.value][key] ?? TEXTS[language.value][key], values);
}

/** A text with its `{name}`s filled in. */
export function filled(text: string, values: Record<string, string | number>): string {
  return text.replace(/\{(\w+)\}/g, (_, name: string) => String(values[name] ?? ''));
}

/** A number in the language's own way, with this many digits after the point. */
export function formatNumber(value: number, digits = 0): string {
  const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return new Intl.NumberFormat(language.value, options).format(value);
}

/** Bytes in the largest binary unit that leaves at least 1. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${formatNumber(value, value < 10 && unit > 0 ? 1 : 0)} ${units[unit]}`;
}
