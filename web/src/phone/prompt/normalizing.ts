// The normalizer section of a `tokenizer.json`: text in, text out.

import { SequenceNormalizer } from '@huggingface/tokenizers';
import { CharactersMap } from './charactersMap';
import { type Step, steps } from './document';
import { pattern } from './patterns';
import { PromptProblem } from './problem';

export type Normalize = (text: string) => string;

export function normalizerOf(step: Step | null): Normalize {
  if (step === null) return (text) => text;
  switch (step.type) {
    case 'Sequence': {
      const all = steps(step.normalizers, 'normalizer').map(normalizerOf);
      return (text) => all.reduce((result, normalize) => normalize(result), text);
    }
    case 'NFC':
    case 'NFD':
    case 'NFKC':
    case 'NFKD': {
      const form = step.type;
      return (text) => text.normalize(form);
    }
    case 'Prepend': {
      const prepended = String(step.prepend);
      return (text) => (text === '' ? '' : prepended + text); // the library would prepend to nothing, too
    }
    case 'Replace': {
      const found = pattern(step.pattern, 'normalizer');
      const content = String(step.content);
      return (text) => text.replaceAll(found, () => content); // a function, since "$&" is only text here
    }
    case 'Precompiled': {
      const map = new CharactersMap(String(step.precompiled_charsmap ?? ''));
      return (text) => map.normalize(text);
    }
    default:
      return ofLibrary(step);
  }
}

/** Steps that no supported family has but a checkpoint's own tokenizer.json might. */
function ofLibrary(step: Step): Normalize {
  try {
    const library = new SequenceNormalizer({ type: 'Sequence', normalizers: [step] } as never);
    return (text) => library.normalize(text);
  } catch (error) {
    throw new PromptProblem('package', `tokenizer.json: normalizer ${step.type}: ${String(error)}`);
  }
}
