// The model section of a `tokenizer.json`: from a word to token ids.

import { BPE } from '@huggingface/tokenizers';
import type { BpeModel, TokenizerDocument } from './document';
import { byteToken, unigramEncoder } from './unigram';

/** Ids of one word. */
export type Encode = (word: string) => number[];

export interface Model {
  encode: Encode;
  /** Token texts by id; undefined where there is no token. */
  texts: (string | undefined)[];
}

export function modelOf(model: TokenizerDocument['model']): Model {
  if (model.type === 'Unigram')
    return { encode: unigramEncoder(model), texts: model.vocab.map(([piece]) => piece) };
  const texts: (string | undefined)[] = [];
  for (const [text, id] of Object.entries(model.vocab)) texts[id] = text;
  return { encode: bpeEncoder(model), texts };
}

/**
 * The library's byte-pair merging. Runs of unknown tokens are joined word by word, as in Python. Where there is
 * no unknown token, characters that have none are left out before the merging: their neighbours may merge.
 */
function bpeEncoder(model: BpeModel): Encode {
  const library = new BPE({ ...model, unk_token: model.unk_token ?? undefined, fuse_unk: false } as never);
  const ids = library.tokens_to_ids;
  const unknown = model.unk_token === null ? undefined : ids.get(model.unk_token);
  const merged = (word: string) => library.encode([word]).map((token) => ids.get(token) as number);
  if (unknown === undefined) {
    const known = knownCharacters(model, ids);
    return (word) => merged(model.ignore_merges && ids.has(word) ? word : known(word));
  }
  return (word) => {
    const found = merged(word);
    if (!model.fuse_unk) return found;
    return found.filter((id, index) => id !== unknown || found[index - 1] !== unknown);
  };
}

/** Leaves out what has neither a token nor, where bytes stand in, tokens for all its bytes. */
function knownCharacters(model: BpeModel, ids: Map<string, number>): (word: string) => string {
  const encoder = new TextEncoder();
  const spelled = (character: string) =>
    model.byte_fallback && [...encoder.encode(character)].every((byte) => ids.has(byteToken(byte)));
  return (word) => {
    const characters = [...word];
    const known = characters.filter((character) => ids.has(character) || spelled(character));
    return known.length === characters.length ? word : known.join('');
  };
}
