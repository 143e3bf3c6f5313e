// Tokens beside the model's own: they are found in the text before the model sees it.

import type { AddedToken } from './document';
import type { Normalize } from './normalizing';
import { anyOf } from './pythonText';

/** A token that was found, or text between tokens. */
export type Part = { id: number } | { text: string; start: number };

const BLANKS_AT_END = /\p{White_Space}+$/u;
const BLANKS_AT_START = /^\p{White_Space}+/u;
const WORD_AT_END = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}]$/u;
const WORD_AT_START = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}]/u;

/** Cuts texts at tokens: first those that stand in the text as it is, then those of the normalized text. */
export class AddedTokens {
  private readonly raw: Finder;
  private readonly normalized: Finder;

  constructor(
    tokens: AddedToken[],
    private readonly normalize: Normalize,
  ) {
    this.raw = new Finder(tokens.filter((token) => !token.normalized).map((token) => [token.content, token]));
    const others = tokens.filter((token) => token.normalized);
    this.normalized = new Finder(others.map((token) => [normalize(token.content), token]));
  }

  /** Parts in order, normalized. `special` false takes special tokens' texts as text. */
  cut(text: string, special: boolean): Part[] {
    return this.raw.cut(text, special).flatMap((part) => {
      if ('id' in part) return [part];
      const { start } = part;
      const parts = this.normalized.cut(this.normalize(part.text), special);
      return parts.map((inner) => ('id' in inner ? inner : { ...inner, start: start + inner.start }));
    });
  }
}

class Finder {
  private readonly tokens: Map<string, AddedToken>;
  private readonly found: RegExp | undefined;

  constructor(entries: [string, AddedToken][]) {
    this.tokens = new Map(entries.filter(([text]) => text !== ''));
    this.found = anyOf(this.tokens.keys(), 'gu');
  }

  cut(text: string, special: boolean): Part[] {
    if (this.found === undefined) return text === '' ? [] : [{ text, start: 0 }];
    const parts: Part[] = [];
    let done = 0;
    for (const match of text.matchAll(this.found)) {
      const token = this.tokens.get(match[0]) as AddedToken;
      if ((token.special && !special) || !standsAlone(token, text, match.index)) continue;
      const [start, end] = withBlanks(token, text, match.index);
      if (done < start) parts.push({ text: text.slice(done, start), start: done });
      parts.push({ id: token.id });
      done = end;
    }
    if (done < text.length) parts.push({ text: text.slice(done), start: done });
    return parts;
  }
}

function standsAlone(token: AddedToken, text: string, start: number): boolean {
  if (!token.single_word) return true;
  const end = start + token.content.length;
  return !WORD_AT_END.test(text.slice(0, start)) && !WORD_AT_START.test(text.slice(end));
}

/** Where a token begins and ends with the blanks that it takes along. */
function withBlanks(token: AddedToken, text: string, start: number): [number, number] {
  const end = start + token.content.length;
  const before = token.lstrip ? (BLANKS_AT_END.exec(text.slice(0, start))?.[0].length ?? 0) : 0;
  const after = token.rstrip ? (BLANKS_AT_START.exec(text.slice(end))?.[0].length ?? 0) : 0;
  return [start - before, end + after];
}
