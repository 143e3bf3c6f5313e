// How a model samples unless told otherwise, and which tokens end its answer: a package's generation.json,
// untrusted. The twin of Python's generate/answer_defaults.py.

import type { Sampling } from '../transport';
import { record } from './bridge';
import { PromptProblem } from './prompt/problem';

/** Settings in the engine's words. */
const NUMBERS = [
  'temperature',
  'top_k',
  'top_p',
  'min_p',
  'repetition_penalty',
  'presence_penalty',
  'frequency_penalty',
  'seed',
  'max_new_tokens',
  'max_length',
] as const;

type Numbers = Partial<Record<(typeof NUMBERS)[number], number>>;

export interface AnswerDefaults {
  numbers: Numbers;
  endTokens: number[];
  ignoreEnd: boolean;
  stops: string[];
}

/** What a request to the engine says besides the tokens, and the stop strings that the page looks for. */
export interface AnswerSettings {
  request: Record<string, unknown>;
  stops: string[];
}

const GREEDY: AnswerDefaults = { numbers: { temperature: 0 }, endTokens: [], ignoreEnd: false, stops: [] };

/** A package without settings answers greedily. */
export function readDefaults(json: string | undefined): AnswerDefaults {
  if (json === undefined) return GREEDY;
  const file = parse(json);
  const numbers: Numbers = {};
  for (const name of NUMBERS) {
    const value = file[name];
    if (value === null || value === undefined) continue;
    if (typeof value !== 'number' || !Number.isFinite(value)) throw wrong(name, 'a number');
    numbers[name] = value;
  }
  if (file.do_sample !== true) numbers.temperature = 0;
  return {
    numbers,
    endTokens: listOf(file.eos_token_ids, 'eos_token_ids', isTokenId),
    ignoreEnd: file.ignore_eos === true,
    stops: listOf(file.stop, 'stop', (text) => typeof text === 'string' && text !== ''),
  };
}

/** The defaults with a request's sampling on top. `room` is what the prompt leaves of the context. */
export function settingsFor(
  defaults: AnswerDefaults,
  sampling: Sampling,
  prompt: number,
  context: number,
): AnswerSettings {
  const { max_tokens, ...chosen } = sampling;
  const { max_new_tokens, max_length, ...numbers } = { ...defaults.numbers, ...chosen };
  const wanted = max_tokens ?? max_new_tokens;
  const whole = max_tokens === undefined ? Math.min(max_length ?? context, context) : context;
  const most = Math.min(whole - prompt, wanted ?? Number.POSITIVE_INFINITY);
  const ends = { end_tokens: defaults.endTokens, ignore_end: defaults.ignoreEnd };
  return { request: { ...numbers, ...ends, max_tokens: most }, stops: defaults.stops };
}

/** Tokens that prompt and answer may have together. */
export function roomFor(defaults: AnswerDefaults, sampling: Sampling, context: number): number {
  return sampling.max_tokens === undefined
    ? Math.min(defaults.numbers.max_length ?? context, context)
    : context;
}

function parse(json: string): Record<string, unknown> {
  try {
    return record(JSON.parse(json));
  } catch (error) {
    throw new PromptProblem('package', `generation.json is not JSON: ${String(error)}`);
  }
}

function listOf<T>(value: unknown, name: string, fits: (entry: unknown) => boolean): T[] {
  if (value === null || value === undefined) return [];
  if (!Array.isArray(value) || !value.every(fits)) throw wrong(name, 'a list of its kind');
  return value;
}

function isTokenId(value: unknown): boolean {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0;
}

function wrong(name: string, expected: string): PromptProblem {
  return new PromptProblem('package', `generation.json: ${name} should be ${expected}`);
}
