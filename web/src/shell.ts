// What the page takes from the program around it: a tab of the server's page, or the Android app. Everything
// else is the same page.

import type { ComponentType } from 'preact';
import type { Transport } from './transport';

export interface Shell {
  /** The way to a model. */
  readonly transport: Transport;
  /** Remembers which conversation is open: a tab's own storage, or one for good where there is one window. */
  readonly memory: Storage;
  /** Whether there is a keyboard with shortcuts worth telling of. */
  readonly keyboard: boolean;
  /** Puts a text on the clipboard; fails where that is not allowed. */
  copy(text: string): Promise<void>;
  /** Gives the reader a text as a file. */
  saveFile(name: string, text: string): Promise<void>;
  /** What stands on the button in the header that opens the model's dialog; undefined: no button. */
  modelName(): string | undefined;
  readonly ModelDialog: ComponentType;
  /** In place of the figures, while no model can be reached. */
  readonly Offline: ComponentType;
  /** Above the message field. */
  readonly Notices?: ComponentType;
  /** In place of the suggestions while this says so. */
  readonly Welcome?: ComponentType;
  needsWelcome?(): boolean;
}

/** Set once, before the page is shown. */
export let shell: Shell;

export function setShell(chosen: Shell): void {
  shell = chosen;
}
