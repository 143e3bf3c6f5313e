// What went wrong, in the reader's language.

import { formatBytes } from '../i18n';
import { HostError, number, text } from './bridge';
import { PromptProblem } from './prompt/problem';
import { type PhoneKey, p } from './texts';

/** The command that makes a model's file on a computer. */
export const EXPORT_COMMAND = 'pocketglm export MODEL --format zip';

const KEYS: Record<string, PhoneKey> = {
  busy: 'errorBusy',
  missing: 'errorMissing',
  exists: 'errorExists',
  source: 'errorSource',
  package: 'errorPackage',
  damaged: 'errorDamaged',
  storage: 'errorStorage',
  memory: 'errorMemory',
  engine: 'errorEngine',
  crashed: 'errorCrashed',
};

export function reasonOf(error: unknown): string {
  if (error instanceof PromptProblem) return p('promptProblem', { reason: error.message });
  if (!(error instanceof HostError)) return p('errorInternal', { reason: String(error) });
  const { needed, free, file } = error.details;
  return p(KEYS[error.code] ?? 'errorInternal', {
    needed: formatBytes(number(needed)),
    free: formatBytes(number(free)),
    file: text(file) || error.message,
    reason: error.message,
    command: EXPORT_COMMAND,
  });
}
