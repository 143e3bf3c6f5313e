// The pre_tokenizer section of a `tokenizer.json`: a text is cut into the words that the model sees.

import { ByteLevelPreTokenizer, SequencePreTokenizer } from '@huggingface/tokenizers';
import { type Step, steps } from './document';
import { fromOniguruma, pattern } from './patterns';
import { PromptProblem } from './problem';

/** Cuts a text; `first` is whether it stands at the start of the whole text. */
export type Cut = (text: string, first: boolean) => string[];

type Behavior = 'Isolated' | 'Removed' | 'MergedWithPrevious' | 'MergedWithNext' | 'Contiguous';

const GPT2_WORDS = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

export function cutterOf(step: Step | null): Cut {
  if (step === null) return (text) => [text];
  switch (step.type) {
    case 'Sequence': {
      const all = steps(step.pretokenizers, 'pre_tokenizer').map(cutterOf);
      return (text, first) =>
        all.reduce((words, cut) => words.flatMap((word, index) => cut(word, first && index === 0)), [text]);
    }
    case 'Split':
      return splitter(
        pattern(step.pattern, 'pre_tokenizer'),
        step.behavior as Behavior,
        step.invert === true,
      );
    case 'Digits': // of every script, where the library knows 0 to 9 alone
      return splitter(/\p{N}/gu, step.individual_digits === true ? 'Isolated' : 'Contiguous', false);
    case 'ByteLevel':
      return byteLevel(step);
    case 'Metaspace':
      return metaspace(step);
    default:
      return ofLibrary(step);
  }
}

function splitter(found: RegExp, behavior: Behavior, invert: boolean): Cut {
  const join = JOINERS[behavior];
  if (join === undefined) throw new PromptProblem('package', `tokenizer.json: splitting ${String(behavior)}`);
  return (text) => join(pieces(text, found, invert)).filter((word) => word !== '');
}

interface Piece {
  text: string;
  matched: boolean;
}

/** The text in pieces that match and pieces between them. */
function pieces(text: string, found: RegExp, invert: boolean): Piece[] {
  const result: Piece[] = [];
  let start = 0;
  const add = (piece: string, matched: boolean) => {
    if (piece !== '') result.push({ text: piece, matched: matched !== invert });
  };
  for (const match of text.matchAll(found)) {
    add(text.slice(start, match.index), false);
    add(match[0], true);
    start = match.index + match[0].length;
  }
  add(text.slice(start), false);
  return result;
}

const JOINERS: Record<Behavior, (pieces: Piece[]) => string[]> = {
  Isolated: (all) => all.map(({ text }) => text),
  Removed: (all) => all.filter(({ matched }) => !matched).map(({ text }) => text),
  MergedWithPrevious: (all) => joined(all, (previous, piece) => piece.matched && !previous.matched),
  MergedWithNext: (all) => joined(all, (previous, piece) => previous.matched && !piece.matched),
  Contiguous: (all) => joined(all, (previous, piece) => previous.matched === piece.matched),
};

/** Joins a piece to the one before it where `joins` says so, looking at the pieces as they were found. */
function joined(all: Piece[], joins: (previous: Piece, piece: Piece) => boolean): string[] {
  const words: string[] = [];
  let previous: Piece | undefined;
  for (const piece of all) {
    if (previous !== undefined && joins(previous, piece)) words[words.length - 1] += piece.text;
    else words.push(piece.text);
    previous = piece;
  }
  return words;
}

/** Bytes as GPT-2's printable characters. The library's own pattern takes JavaScript's blanks: not ours. */
function byteLevel(step: Step): Cut {
  const library = new ByteLevelPreTokenizer({ type: 'ByteLevel', use_regex: false } as never);
  const cut = step.use_regex === false ? undefined : splitter(fromOniguruma(GPT2_WORDS), 'Isolated', false);
  return (text, first) => {
    const whole = step.add_prefix_space === true && !text.startsWith(' ') ? ` ${text}` : text;
    return (cut?.(whole, first) ?? [whole]).flatMap((word) => library.pre_tokenize_text(word, {} as never));
  };
}

function metaspace(step: Step): Cut {
  const mark = String(step.replacement ?? '▁');
  const scheme = step.prepend_scheme ?? (step.add_prefix_space === false ? 'never' : 'always');
  const cut =
    step.split === false ? undefined : splitter(pattern({ String: mark }, ''), 'MergedWithNext', false);
  return (text, first) => {
    const marked = text.replaceAll(' ', () => mark);
    const wanted = scheme === 'always' || (scheme === 'first' && first);
    const whole = wanted && !marked.startsWith(mark) ? mark + marked : marked;
    return cut?.(whole, first) ?? [whole];
  };
}

/** Steps that no supported family has but a checkpoint's own tokenizer.json might. */
function ofLibrary(step: Step): Cut {
  try {
    const library = new SequencePreTokenizer({ type: 'Sequence', pretokenizers: [step] } as never);
    return (text) => library.pre_tokenize_text(text, {} as never);
  } catch (error) {
    throw new PromptProblem('package', `tokenizer.json: pre_tokenizer ${step.type}: ${String(error)}`);
  }
}
