// Light, dark, or the system's choice.

import { signal } from '@preact/signals';

export type Theme = 'system' | 'light' | 'dark';
export const THEMES: Theme[] = ['system', 'light', 'dark'];
const CHOICE = 'pocketglm.theme';

export const theme = signal<Theme>(THEMES.find((name) => name === localStorage.getItem(CHOICE)) ?? 'system');

export function chooseTheme(name: Theme): void {
  theme.value = name;
  localStorage.setItem(CHOICE, name);
  document.documentElement.dataset.theme = name;
}
