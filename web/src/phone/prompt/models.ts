// The model section of a `tokenizer.json`: from a word to token ids.

import { BPE } from '@huggingface/tokenizers';
import type { BpeModel, TokenizerDocument } from './document';
import { unigramEncoder } from './unigram';

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

/** The library's byte-pair merging; runs of unknown tokens are joined word by word, as in Python. */
function bpeEncoder(model: BpeModel): Encode {
  const library = new BPE({ ...model, unk_token: model.unk_token ?? undefined, fuse_unk: false } as never);
  const ids = library.tokens_to_ids;
  const unknown = model.unk_token === null ? undefined : ids.get(model.unk_token);
  return (word) => {
    const found = library.encode([word]).map((token) => ids.get(token) as number);
    if (!model.fuse_unk) return found;
    return found.filter((id, index) => id !== unknown || found[index - 1] !== unknown);
  };
}
