import { type TextKey, t } from '../i18n';
import { Dialog } from './Dialog';

const SHORTCUTS: [string[], TextKey][] = [
  [['Enter'], 'keySend'],
  [['Shift', 'Enter'], 'keyLine'],
  [['Esc'], 'keyStop'],
  [['↑'], 'keyEdit'],
  [['Ctrl', 'Shift', 'O'], 'keyNew'],
  [['Ctrl', 'K'], 'keySearch'],
  [['Ctrl', ','], 'keySettings'],
  [['?'], 'keyHelp'],
];

export function ShortcutsDialog() {
  return (
    <Dialog title={t('shortcuts')}>
      <dl class="facts shortcuts">
        {SHORTCUTS.map(([keys, text]) => (
          <div key={text}>
            <dt>{t(text)}</dt>
            <dd>
              {keys.map((key) => (
                <kbd key={key}>{key}</kbd>
              ))}
            </dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}
