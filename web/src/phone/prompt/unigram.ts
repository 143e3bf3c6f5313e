// The unigram model: the likeliest way to write a word as pieces (Viterbi), as the Python side's library
// searches for it. The JavaScript library has no byte fallback, and a Map for every node of its trie: 64 MB
// for ChatGLM-6B's 130,344 pieces. Here the sorted pieces are the trie: 21 MB, and as fast to load.

import type { UnigramModel } from './document';
import type { Encode } from './models';

const UNKNOWN_PENALTY = 10; // an unknown character costs this much more than the worst piece

export function unigramEncoder(model: UnigramModel): Encode {
  const search = new UnigramSearch(model);
  return (word) => search.encode(word);
}

/** The best way to write the beginning of a word that ends at one place. */
interface Best {
  score: number;
  start: number;
  id: number; // -1: an unknown character
}

class UnigramSearch {
  private readonly ids: Map<string, number>;
  private readonly sorted: string[];
  private readonly unknownScore: number;
  private readonly encoder = new TextEncoder();

  constructor(private readonly model: UnigramModel) {
    this.ids = new Map(model.vocab.map(([piece], id) => [piece, id]));
    this.sorted = [...this.ids.keys()].sort((a, b) => (a < b ? -1 : 1));
    let lowest = Number.POSITIVE_INFINITY;
    for (const [, score] of model.vocab) lowest = Math.min(lowest, score);
    this.unknownScore = lowest - UNKNOWN_PENALTY;
  }

  encode(word: string): number[] {
    const best = this.search(word);
    const ids: number[] = [];
    let unknownEnd = 0; // end of a run of unknown characters that is being collected
    for (let end = word.length; end > 0; ) {
      const { start, id } = best[end] as Best;
      if (id < 0 && unknownEnd === 0) unknownEnd = end;
      if (unknownEnd > 0 && id >= 0) {
        ids.push(...this.unknown(word.slice(end, unknownEnd)));
        unknownEnd = 0;
      }
      if (id >= 0) ids.push(id);
      end = start;
    }
    if (unknownEnd > 0) ids.push(...this.unknown(word.slice(0, unknownEnd)));
    return ids.reverse();
  }

  private search(word: string): (Best | undefined)[] {
    const best: (Best | undefined)[] = new Array(word.length + 1);
    best[0] = { score: 0, start: 0, id: 0 };
    for (let start = 0; start < word.length; ) {
      const here = (best[start] as Best).score;
      const size = (word.codePointAt(start) ?? 0) > 0xffff ? 2 : 1;
      let single = false;
      for (const [end, id] of this.pieces(word, start)) {
        offer(best, end, start, id, (this.model.vocab[id]?.[1] ?? 0) + here);
        single ||= end - start === size;
      }
      if (!single) offer(best, start + size, start, -1, this.unknownScore + here);
      start += size;
    }
    return best;
  }

  /** Ends and ids of all pieces that the word has at `start`, shortest first. */
  private *pieces(word: string, start: number): Generator<[number, number]> {
    let low = 0;
    let high = this.sorted.length;
    for (let end = start; end < word.length; end++) {
      const depth = end - start;
      const unit = word.charCodeAt(end);
      low = this.firstFrom(low, high, depth, unit);
      high = this.firstFrom(low, high, depth, unit + 1);
      const piece = this.sorted[low];
      if (low === high || piece === undefined) return;
      if (piece.length === depth + 1) yield [end + 1, this.ids.get(piece) as number];
    }
  }

  /** The first of the pieces from low to high, which agree up to `depth`, whose next unit is at least this. */
  private firstFrom(low: number, high: number, depth: number, unit: number): number {
    let [from, to] = [low, high];
    while (from < to) {
      const middle = (from + to) >>> 1;
      const found = (this.sorted[middle] as string).charCodeAt(depth); // NaN at a piece's end: comes first
      if (found >= unit) to = middle;
      else from = middle + 1;
    }
    return from;
  }

  /** Ids of a run of unknown characters, the last first: its bytes, or one unknown token. */
  private unknown(text: string): number[] {
    if (this.model.byte_fallback) {
      const bytes = [...this.encoder.encode(text)].map((byte) => this.ids.get(byteToken(byte)));
      if (bytes.every((id) => id !== undefined)) return bytes.reverse();
    }
    return this.model.unk_id === null ? [] : [this.model.unk_id];
  }
}

function offer(best: (Best | undefined)[], end: number, start: number, id: number, score: number): void {
  const known = best[end];
  if (known === undefined || score > known.score) best[end] = { score, start, id };
}

export function byteToken(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
}
