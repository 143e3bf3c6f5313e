// The patterns of a `tokenizer.json`, which are Oniguruma's, as JavaScript's.

import { SplitPreTokenizer } from '@huggingface/tokenizers';
import { PromptProblem } from './problem';
import { escapePattern } from './pythonText';

/** An expression with the flags `gu`, so use it in replaceAll and matchAll alone. */
export function pattern(entry: unknown, where: string): RegExp {
  const { String: text, Regex: source } = (entry ?? {}) as { String?: unknown; Regex?: unknown };
  if (typeof text === 'string') return new RegExp(escapePattern(text), 'gu');
  if (typeof source === 'string') return fromOniguruma(source);
  throw new PromptProblem('package', `tokenizer.json: ${where} has a pattern that is neither text nor regex`);
}

/** The library translates what means something else in JavaScript: \s, \w, \A, \z, (?i:...) and others. */
export function fromOniguruma(source: string): RegExp {
  let translated: RegExp | null;
  try {
    translated = new SplitPreTokenizer({ type: 'Split', behavior: 'Isolated', pattern: { Regex: source } })
      .pattern;
  } catch (error) {
    throw new PromptProblem('package', `tokenizer.json: ${source.slice(0, 80)}: ${String(error)}`);
  }
  if (translated === null)
    throw new PromptProblem('package', `tokenizer.json: ${source.slice(0, 80)} is empty`);
  return translated;
}
