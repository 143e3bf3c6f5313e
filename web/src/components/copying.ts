import { t } from '../i18n';
import { shell } from '../shell';
import { announce, toast } from '../state';

/** Puts a text on the clipboard and says so; whether it worked. */
export async function copyText(text: string): Promise<boolean> {
  try {
    await shell.copy(text);
  } catch {
    toast(t('copyFailed'));
    return false;
  }
  announce(t('copied'));
  return true;
}
