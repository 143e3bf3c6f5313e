// What of a `tokenizer.json` the page reads. The file is untrusted: a wrong type is a PromptProblem.

import { PromptProblem } from './problem';

/** A step of normalizing, cutting or decoding: its type and settings. */
export type Step = { type: string } & Record<string, unknown>;

export interface AddedToken {
  id: number;
  content: string;
  special: boolean;
  normalized: boolean;
  lstrip: boolean;
  rstrip: boolean;
  single_word: boolean;
}

export interface BpeModel {
  type: 'BPE';
  vocab: Record<string, number>;
  merges: string[] | [string, string][];
  unk_token: string | null;
  byte_fallback: boolean;
  fuse_unk: boolean;
  ignore_merges: boolean;
}

export interface UnigramModel {
  type: 'Unigram';
  vocab: [string, number][];
  unk_id: number | null;
  byte_fallback: boolean;
}

export interface TokenizerDocument {
  added_tokens: AddedToken[];
  normalizer: Step | null;
  pre_tokenizer: Step | null;
  decoder: unknown;
  model: BpeModel | UnigramModel;
}

/** No vocabulary is larger; a larger id is an attack or a bug. */
export const MAX_VOCABULARY = 1 << 24;

export function readDocument(text: string): TokenizerDocument {
  let file: unknown;
  try {
    file = JSON.parse(text);
  } catch (error) {
    throw new PromptProblem('package', `tokenizer.json is not JSON: ${String(error)}`);
  }
  const root = object(file, 'tokenizer.json');
  return {
    added_tokens: list(root.added_tokens ?? [], 'added_tokens').map(addedToken),
    normalizer: stepOrNull(root.normalizer, 'normalizer'),
    pre_tokenizer: stepOrNull(root.pre_tokenizer, 'pre_tokenizer'),
    decoder: root.decoder,
    model: model(object(root.model, 'model')),
  };
}

function addedToken(entry: unknown): AddedToken {
  const token = object(entry, 'added_tokens');
  if (typeof token.content !== 'string' || !isId(token.id))
    throw wrong('added_tokens', 'an id and a content');
  const flag = (name: string) => token[name] === true;
  return {
    id: token.id,
    content: token.content,
    special: flag('special'),
    normalized: token.normalized === undefined ? !flag('special') : flag('normalized'),
    lstrip: flag('lstrip'),
    rstrip: flag('rstrip'),
    single_word: flag('single_word'),
  };
}

function model(entry: Record<string, unknown>): BpeModel | UnigramModel {
  if (entry.type === 'Unigram') return unigram(entry);
  const bpe = entry.type === 'BPE' || (entry.type === undefined && Array.isArray(entry.merges));
  if (!bpe)
    throw new PromptProblem('package', `a tokenizer of the kind ${String(entry.type)} is not supported`);
  for (const name of ['dropout', 'continuing_subword_prefix', 'end_of_word_suffix'])
    if (entry[name]) throw new PromptProblem('package', `the tokenizer's setting ${name} is not supported`);
  const vocab = object(entry.vocab, 'model.vocab') as Record<string, number>;
  if (!Object.values(vocab).every(isId)) throw wrong('model.vocab', 'token ids');
  return {
    type: 'BPE',
    vocab,
    merges: merges(list(entry.merges, 'model.merges')),
    unk_token: typeof entry.unk_token === 'string' ? entry.unk_token : null,
    byte_fallback: entry.byte_fallback === true,
    fuse_unk: entry.fuse_unk === true,
    ignore_merges: entry.ignore_merges === true,
  };
}

/** Pairs as lists, or as texts with one blank, in older files. */
function merges(entries: unknown[]): [string, string][] {
  return entries.map((entry) => {
    const pair = typeof entry === 'string' ? entry.split(' ') : entry;
    if (!Array.isArray(pair) || pair.length !== 2 || !pair.every((part) => typeof part === 'string'))
      throw wrong('model.merges', 'pairs of tokens');
    return pair as [string, string];
  });
}

function unigram(entry: Record<string, unknown>): UnigramModel {
  const vocab = list(entry.vocab, 'model.vocab') as [string, number][];
  if (vocab.length > MAX_VOCABULARY || !vocab.every(isPiece)) throw wrong('model.vocab', 'pieces and scores');
  const unknown = entry.unk_id;
  if (unknown !== null && unknown !== undefined && !(isId(unknown) && unknown < vocab.length))
    throw wrong('model.unk_id', 'a token id');
  return { type: 'Unigram', vocab, unk_id: unknown ?? null, byte_fallback: entry.byte_fallback === true };
}

function isPiece(entry: unknown): boolean {
  return Array.isArray(entry) && typeof entry[0] === 'string' && typeof entry[1] === 'number';
}

function isId(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < MAX_VOCABULARY;
}

function stepOrNull(value: unknown, where: string): Step | null {
  return value === null || value === undefined ? null : step(value, where);
}

/** A step of a Sequence, too, has a type. */
export function step(value: unknown, where: string): Step {
  const entry = object(value, where);
  if (typeof entry.type !== 'string') throw wrong(where, 'an object with a type');
  return entry as Step;
}

export function steps(value: unknown, where: string): Step[] {
  return list(value, where).map((entry) => step(entry, where));
}

function object(value: unknown, where: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(where, 'an object');
  return value as Record<string, unknown>;
}

function list(value: unknown, where: string): unknown[] {
  if (!Array.isArray(value)) throw wrong(where, 'a list');
  return value;
}

function wrong(where: string, expected: string): PromptProblem {
  return new PromptProblem('package', `tokenizer.json: ${where} should be ${expected}`);
}
