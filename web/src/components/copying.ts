import { t } from '../i18n';
import { announce, toast } from '../state';

/** Puts a text on the clipboard and says so; whether it worked. */
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Plain HTTP addresses other than localhost have no clipboard interface.
    if (!copyBySelection(text)) {
      toast(t('copyFailed'));
      return false;
    }
  }
  announce(t('copied'));
  return true;
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
