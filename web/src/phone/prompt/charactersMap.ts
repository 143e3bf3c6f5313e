// SentencePiece's precompiled normalization: a double-array trie over UTF-8 and the texts it leads to.
//
// The library has its own approximation of it (NFKC and some blanks); this reads the map itself, as the
// Python side's library does, clusters and all.

import { PromptProblem } from './problem';

const CLUSTER_BYTES = 6; // longer clusters are looked up character by character

export class CharactersMap {
  private readonly units: Uint32Array;
  private readonly texts: Uint8Array;
  private readonly clusters = new Intl.Segmenter('en', { granularity: 'grapheme' });
  private readonly encoder = new TextEncoder();
  private readonly decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  private readonly known = new Map<string, string | undefined>();

  constructor(base64: string) {
    const bytes = bytesOf(base64);
    const view = new DataView(bytes.buffer);
    const size = bytes.length < 4 ? 0 : view.getUint32(0, true);
    if (size % 4 !== 0 || size + 4 > bytes.length)
      throw new PromptProblem('package', 'tokenizer.json: the characters map is cut off');
    this.units = Uint32Array.from({ length: size / 4 }, (_, index) => view.getUint32(4 + 4 * index, true));
    this.texts = bytes.subarray(4 + size);
  }

  normalize(text: string): string {
    let result = '';
    for (const { segment } of this.clusters.segment(text)) result += this.cluster(segment);
    return result;
  }

  private cluster(text: string): string {
    if (this.encoder.encode(text).length < CLUSTER_BYTES) {
      const whole = this.lookup(text);
      if (whole !== undefined) return whole;
    }
    let result = '';
    for (const character of text) result += this.lookup(character) ?? character;
    return result;
  }

  private lookup(text: string): string | undefined {
    if (!this.known.has(text)) this.known.set(text, this.find(this.encoder.encode(text)));
    return this.known.get(text);
  }

  /** What the shortest beginning that the trie holds stands for. */
  private find(key: Uint8Array): string | undefined {
    let unit = this.units[0] ?? 0;
    let place = offset(unit);
    for (const byte of key) {
      if (byte === 0) return undefined;
      place ^= byte;
      unit = this.units[place] ?? 0;
      if ((unit & 0x800000ff) >>> 0 !== byte) return undefined;
      place ^= offset(unit);
      if ((unit >>> 8) & 1) return this.textAt((this.units[place] ?? 0) & 0x7fffffff);
    }
    return undefined;
  }

  private textAt(start: number): string {
    const end = this.texts.indexOf(0, start);
    return this.decoder.decode(this.texts.subarray(start, end < 0 ? this.texts.length : end));
  }
}

function offset(unit: number): number {
  return (unit >>> 10) << ((unit & 0x200) >>> 6);
}

function bytesOf(base64: string): Uint8Array<ArrayBuffer> {
  try {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  } catch {
    throw new PromptProblem('package', 'tokenizer.json: the characters map is no base64');
  }
}
