// Text to token ids and back, from a package's `tokenizer.json`, with the ids of the Python side.
//
// The parts of @huggingface/tokenizers that agree with the Python library are used (byte-pair merging,
// translation of patterns, byte-level characters); the order of work and the rest is here.
// docs/decisions/0018-tokenizer-in-the-page.md lists the differences.

import { AddedTokens } from './added';
import { type Cut, cutterOf } from './cutting';
import { type Decoding, readDecoding, StreamDecoder, tokenBytes } from './decoding';
import { MAX_VOCABULARY, readDocument } from './document';
import { type Model, modelOf } from './models';
import { normalizerOf } from './normalizing';
import { PromptProblem } from './problem';
import { wellFormed } from './pythonText';

/** A special token, and whether it takes the blanks before and after it along. */
export interface SpecialToken {
  id: number;
  stripBefore: boolean;
  stripAfter: boolean;
}

export class Tokenizer {
  /** By text. */
  readonly special = new Map<string, SpecialToken>();
  private readonly specialIds: Set<number>;
  private readonly addedTexts = new Map<number, string>();
  private readonly added: AddedTokens;
  private readonly cutter: Cut;
  private readonly model: Model;
  private readonly decoding: Decoding;
  private readonly bytes = new Map<number, Uint8Array>();

  /** Raises a PromptProblem for a file that is malformed or not supported. */
  constructor(text: string) {
    const document = readDocument(text);
    this.decoding = readDecoding(document.decoder);
    this.added = new AddedTokens(document.added_tokens, normalizerOf(document.normalizer));
    this.cutter = cutterOf(document.pre_tokenizer);
    this.model = modelOf(document.model);
    for (const { id, content, special, lstrip, rstrip } of document.added_tokens) {
      this.addedTexts.set(id, content);
      if (special) this.special.set(content, { id, stripBefore: lstrip, stripAfter: rstrip });
    }
    this.specialIds = new Set([...this.special.values()].map(({ id }) => id));
    if (this.vocabSize === 0) throw new PromptProblem('package', 'tokenizer.json has no tokens');
  }

  /** One more than the largest id. */
  get vocabSize(): number {
    const added = [...this.addedTexts.keys()].reduce((largest, id) => Math.max(largest, id), -1);
    return Math.max(this.model.texts.length, added + 1);
  }

  /** Ids of a text. `special` recognises special tokens that are written in it. */
  encode(text: string, special = false): number[] {
    const ids: number[] = [];
    for (const part of this.added.cut(wellFormed(text), special)) {
      if ('id' in part) ids.push(part.id);
      else for (const word of this.cutter(part.text, part.start === 0)) append(ids, this.model.encode(word));
    }
    return ids;
  }

  /** The text of ids, special tokens left out; bytes that are no UTF-8 become U+FFFD. */
  decode(ids: readonly number[]): string {
    const stream = this.stream();
    return ids.map((id) => stream.push(id)).join('') + stream.finish();
  }

  /** A decoder that takes one token at a time. */
  stream(): StreamDecoder {
    return new StreamDecoder((id) => this.visibleBytes(id), this.decoding);
  }

  private visibleBytes(id: number): Uint8Array {
    if (this.specialIds.has(id)) return new Uint8Array();
    if (!(Number.isInteger(id) && id >= 0 && id < MAX_VOCABULARY))
      throw new PromptProblem('package', `${id} is no token id`);
    let known = this.bytes.get(id);
    if (known === undefined) {
      const added = this.addedTexts.get(id);
      known = tokenBytes(added ?? this.model.texts[id] ?? '', added !== undefined, this.decoding);
      this.bytes.set(id, known);
    }
    return known;
  }
}

function append(list: number[], more: number[]): void {
  for (const entry of more) list.push(entry);
}
