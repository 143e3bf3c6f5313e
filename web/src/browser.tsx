// The page in a tab of a browser, which talks to the server it came from.

import { ModelDialog } from './components/ModelDialog';
import { t } from './i18n';
import type { Shell } from './shell';
import { status } from './state';
import { HttpTransport } from './transport';

export function browserShell(): Shell {
  return {
    transport: new HttpTransport(),
    memory: sessionStorage,
    keyboard: true,
    copy,
    saveFile: async (name, text) => saveFile(name, text),
    modelName: () => status.value?.model,
    ModelDialog,
    Offline,
  };
}

async function copy(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch (error) {
    // Plain HTTP addresses other than localhost have no clipboard interface.
    if (!copyBySelection(text)) throw error;
  }
}

function copyBySelection(text: string): boolean {
  const field = document.createElement('textarea');
  field.value = text;
  field.className = 'hidden';
  document.body.append(field);
  field.select();
  const worked = document.execCommand('copy');
  field.remove();
  return worked;
}

function saveFile(name: string, text: string): void {
  const address = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
  const link = document.createElement('a');
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

function Offline() {
  return (
    <p class="strip offline" role="alert">
      {t('offline')}
    </p>
  );
}
