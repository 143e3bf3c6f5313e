// From messages to the token ids of a prompt. What a message says stays text: a user who writes
// `<|assistant|>` cannot end the turn. The twin of Python's generate/template.py.

import type { ChatMessage } from '../../transport';
import { PromptProblem } from './problem';
import { anyOf, stripEnd, stripStart } from './pythonText';
import { SandboxedTemplate } from './sandbox';
import type { Tokenizer } from './tokenizer';

/** Unicode noncharacters, reserved for use inside programs. */
const MARKS = Array.from({ length: 32 }, (_, index) => String.fromCharCode(0xfdd0 + index));

/** Blanks that only one of the two languages strips, and blanks that both or neither do. */
const ONLY_PYTHON_STRIPS = ['\x1c', '\x1d', '\x1e', '\x1f', '\x85'];
const BOTH_STRIP = ['\u1680', '\u2000', '\u2001', '\u2002', '\u2003', '\u2004', '\u2005', '\u2006'];
const ONLY_JAVASCRIPT_STRIPS = '\ufeff';

export class ChatTemplate {
  private readonly template: SandboxedTemplate;

  constructor(
    source: string,
    private readonly tokenizer: Tokenizer,
    now?: () => Date,
  ) {
    this.template = new SandboxedTemplate(source, now);
  }

  /** The prompt as text, ready for the answer. */
  render(messages: readonly ChatMessage[], variables: Record<string, unknown> = {}): string {
    if (messages.length === 0)
      throw new PromptProblem('messages', 'a conversation needs at least one message');
    const disguise = disguiseFor(JSON.stringify([messages, variables]));
    const disguised = mapStrings({ ...variables, messages }, disguise.put) as Record<string, unknown>;
    return disguise.take(this.template.render({ add_generation_prompt: true, ...disguised }));
  }

  /** The prompt's token ids, with special tokens only where the template wrote them. */
  encode(messages: readonly ChatMessage[]): number[] {
    const special = [...this.tokenizer.special.keys()];
    const found = anyOf(special, 'gu');
    const strings = messages.flatMap(({ role, content }) => [role, content]);
    if (found === undefined || !strings.some((text) => text.search(found) >= 0))
      return this.tokenizer.encode(this.render(messages), true);
    const mark = unusedMark(strings);
    const at = anyOf(special, 'yu') as RegExp;
    const broken = mapStrings(messages, (text) => breakSpecial(text, at, mark));
    return this.encodeRuns(this.render(broken as ChatMessage[]), found, mark);
  }

  /** Ids of rendered text whose messages had their special texts broken by `mark`. */
  private encodeRuns(text: string, found: RegExp, mark: string): number[] {
    const ids: number[] = [];
    let start = 0;
    let stripNext = false;
    for (const match of [...text.matchAll(found), undefined]) {
      const token = match === undefined ? undefined : this.tokenizer.special.get(match[0]);
      let run = text.slice(start, match?.index).replaceAll(mark, '');
      if (stripNext) run = stripStart(run);
      if (token?.stripBefore) run = stripEnd(run);
      for (const id of this.tokenizer.encode(run)) ids.push(id);
      if (match === undefined || token === undefined) continue;
      ids.push(token.id);
      start = match.index + match[0].length;
      stripNext = token.stripAfter;
    }
    return ids;
  }
}

function unusedMark(strings: readonly string[]): string {
  const mark = MARKS.find((candidate) => !strings.some((text) => text.includes(candidate)));
  if (mark === undefined)
    throw new PromptProblem('messages', 'the messages use all of Unicode’s noncharacters');
  return mark;
}

/** A mark after the first character of every special token's text. */
function breakSpecial(text: string, at: RegExp, mark: string): string {
  let result = '';
  let place = 0;
  for (const character of text) {
    at.lastIndex = place;
    result += at.test(text) ? character + mark : character;
    place += character.length;
  }
  return result;
}

interface Disguise {
  put(text: string): string;
  take(text: string): string;
}

const NO_DISGUISE: Disguise = { put: (text) => text, take: (text) => text };

/**
 * Templates strip blanks, and JavaScript's blanks are not Python's. Characters that one alone strips are
 * exchanged, before and after, for unused ones that JavaScript treats as Python treats them.
 */
function disguiseFor(all: string): Disguise {
  const used = (text: string) => all.includes(text);
  const exchanges = new Map<string, string>();
  const blanks = BOTH_STRIP.filter((blank) => !used(blank));
  // JSON.stringify escapes the four below 0x20.
  const escaped = (text: string) => JSON.stringify(text).slice(1, -1);
  for (const blank of ONLY_PYTHON_STRIPS.filter((blank) => used(blank) || used(escaped(blank)))) {
    const stand = blanks.shift();
    if (stand !== undefined) exchanges.set(blank, stand);
  }
  const mark = MARKS.findLast((candidate) => !used(candidate));
  if (used(ONLY_JAVASCRIPT_STRIPS) && mark !== undefined) exchanges.set(ONLY_JAVASCRIPT_STRIPS, mark);
  if (exchanges.size === 0) return NO_DISGUISE;
  const back = new Map([...exchanges].map(([from, to]) => [to, from]));
  return { put: exchanger(exchanges), take: exchanger(back) };
}

function exchanger(exchanges: Map<string, string>): (text: string) => string {
  const found = anyOf(exchanges.keys(), 'gu') as RegExp;
  return (text) => text.replace(found, (character) => exchanges.get(character) ?? character);
}

/** The same JSON-like value with every text in it, names too, changed. */
function mapStrings(value: unknown, change: (text: string) => string): unknown {
  if (typeof value === 'string') return change(value);
  if (Array.isArray(value)) return value.map((entry) => mapStrings(entry, change));
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(([name, entry]) => [change(name), mapStrings(entry, change)]);
  return Object.fromEntries(entries);
}
