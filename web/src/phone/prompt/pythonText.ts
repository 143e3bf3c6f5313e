// Text as Python sees it, where JavaScript differs: blanks, and halves of surrogate pairs.

/** What Python's str.strip() removes. */
const PYTHON_BLANKS = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';
const BLANKS_AT_START = new RegExp(`^[${PYTHON_BLANKS}]+`, 'u');
const BLANKS_AT_END = new RegExp(`[${PYTHON_BLANKS}]+$`, 'u');

export function stripStart(text: string): string {
  return text.replace(BLANKS_AT_START, '');
}

export function stripEnd(text: string): string {
  // The expression alone would look for the end behind every run of blanks.
  let end = text.length;
  while (end > 0 && BLANKS_AT_END.test(text[end - 1] ?? '')) end--;
  return text.slice(0, end);
}

/** Python's str.strip(characters) and its kin; the library's take no characters. */
export function stripCharacters(
  text: string,
  characters: string,
  name: 'strip' | 'lstrip' | 'rstrip',
): string {
  const all = [...text];
  const taken = new Set(characters);
  let [start, end] = [0, all.length];
  if (name !== 'rstrip') while (start < end && taken.has(all[start] as string)) start++;
  if (name !== 'lstrip') while (end > start && taken.has(all[end - 1] as string)) end--;
  return all.slice(start, end).join('');
}

/** The text with U+FFFD for every half of a surrogate pair that stands alone. */
export function wellFormed(text: string): string {
  return text.replace(/\p{Surrogate}/gu, '\ufffd');
}

/** Matches any of the texts, the longest first; undefined for no texts. `y` looks at one place only. */
export function anyOf(texts: Iterable<string>, flags: 'gu' | 'yu'): RegExp | undefined {
  const ordered = [...texts].sort((a, b) => b.length - a.length);
  if (ordered.length === 0) return undefined;
  return new RegExp(ordered.map(escapePattern).join('|'), flags);
}

export function escapePattern(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&');
}
