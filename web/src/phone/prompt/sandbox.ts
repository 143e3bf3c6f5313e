// Rendering of Jinja chat templates that nobody has checked: @huggingface/jinja has no way out of the
// template, and here it gets limits on steps and on the texts it makes. The twin of generate/sandbox.py.

import { Environment, Interpreter, parse, tokenize } from '@huggingface/jinja';
import { printedNodes, pythonText } from './printed';
import { PromptProblem } from './problem';
import { stripCharacters } from './pythonText';
import { dateText } from './strftime';

const MAX_SOURCE = 1 << 20;
const MAX_TEXT = 1 << 23; // UTF-16 units of any text a template makes
const MAX_STEPS = 2_000_000; // nodes of the template evaluated
const CONSTANTS: [string, unknown][] = [
  ['true', true],
  ['false', false],
  ['none', null],
  ['True', true],
  ['False', false],
  ['None', null],
];

/** A template refused its messages with `raise_exception`. */
class TemplateRaised extends Error {}

class TemplateLimit extends Error {}

type Node = Parameters<Interpreter['evaluate']>[0];
type Value = ReturnType<Interpreter['evaluate']>;

/** `text.strip('x')` in a template. */
interface Strip {
  callee: { object: Node; property: { value: 'strip' | 'lstrip' | 'rstrip' } };
  args: [Node];
}

/** A loop that runs. `left` is the library's `loop` object of an iteration that `continue` has ended. */
interface Loop {
  broken: boolean;
  left: Value | undefined;
}

/**
 * Counts steps and looks at every text that is made.
 *
 * The library drops what an iteration has written before `break` or `continue`; so these do not throw here,
 * as they do there: what follows them in the loop's body is passed over.
 */
class LimitedInterpreter extends Interpreter {
  private steps = MAX_STEPS;
  private readonly loops: Loop[] = [];

  constructor(
    scope: Environment,
    private readonly printed: Set<unknown>,
  ) {
    super(scope);
  }

  override evaluate(node: Node, scope: Environment): Value {
    this.charge(1);
    const loop = this.loops.at(-1);
    if (loop !== undefined && passesOver(loop, scope)) return scope.lookupVariable('none');
    if (loop !== undefined && (node?.type === 'Break' || node?.type === 'Continue')) {
      if (node.type === 'Break') loop.broken = true;
      else loop.left = scope.lookupVariable('loop');
      return scope.lookupVariable('none');
    }
    if (node?.type === 'For') this.loops.push({ broken: false, left: undefined });
    const found = isStrip(node) ? this.strip(node, scope) : super.evaluate(node, scope);
    if (node?.type === 'For') this.loops.pop();
    const text = this.printed.has(node) ? pythonText(found.type, found.value) : undefined;
    const value = text === undefined ? found : this.text(text, scope);
    if (typeof value.value === 'string' && value.value.length > MAX_TEXT)
      throw new TemplateLimit(`makes a text of more than ${MAX_TEXT} characters`);
    return value;
  }

  private strip(node: Strip, scope: Environment): Value {
    const { object, property } = node.callee;
    const [text, characters] = [this.evaluate(object, scope).value, this.evaluate(node.args[0], scope).value];
    if (typeof text !== 'string' || typeof characters !== 'string')
      throw new Error(`${property.value}() of or with something that is no text`);
    return this.text(stripCharacters(text, characters, property.value), scope);
  }

  /** A value of the library's kind. */
  private text(value: string, scope: Environment): Value {
    return super.evaluate({ type: 'StringLiteral', value } as unknown as Node, scope);
  }

  charge(steps: number): void {
    this.steps -= steps;
    if (this.steps < 0) throw new TemplateLimit(`takes more than ${MAX_STEPS} steps`);
  }
}

/** Whether the loop, or its iteration, is over. A new iteration has a new `loop` object. */
function passesOver(loop: Loop, scope: Environment): boolean {
  if (loop.left !== undefined && scope.lookupVariable('loop') !== loop.left) loop.left = undefined;
  return loop.broken || loop.left !== undefined;
}

function isStrip(node: unknown): node is Strip {
  const { type, callee, args } = (node ?? {}) as {
    type?: string;
    callee?: { type: string; computed: boolean; property: { value: unknown } };
    args?: unknown[];
  };
  if (type !== 'CallExpression' || callee?.type !== 'MemberExpression' || callee.computed) return false;
  return args?.length === 1 && ['strip', 'lstrip', 'rstrip'].includes(String(callee.property.value));
}

export class SandboxedTemplate {
  private readonly program: ReturnType<typeof parse>;
  private readonly printed: Set<unknown>;

  constructor(
    source: string,
    private readonly now: () => Date = () => new Date(),
  ) {
    if (source.length > MAX_SOURCE)
      throw new PromptProblem('package', `chat_template.jinja has more than ${MAX_SOURCE} characters`);
    try {
      this.program = parse(tokenize(source, { trim_blocks: true, lstrip_blocks: true }));
      this.printed = printedNodes(this.program);
    } catch (error) {
      throw new PromptProblem('package', `chat_template.jinja is not a usable template: ${messageOf(error)}`);
    }
  }

  /** The prompt. Raises a PromptProblem that says whether the template or the messages are at fault. */
  render(variables: Record<string, unknown>): string {
    const scope = new Environment();
    const interpreter = new LimitedInterpreter(scope, this.printed);
    for (const [name, value] of CONSTANTS) scope.set(name, value);
    scope.set('raise_exception', (message: unknown) => {
      throw new TemplateRaised(String(message));
    });
    scope.set('strftime_now', (pattern: unknown) => dateText(this.now(), String(pattern)));
    scope.set('range', (...bounds: number[]) => chargedRange(interpreter, bounds));
    for (const [name, value] of Object.entries(variables)) scope.set(name, value);
    try {
      return String((interpreter.run(this.program) as { value: unknown }).value);
    } catch (error) {
      throw problemOf(error);
    }
  }
}

/** As Python's range; the steps are paid before the list is made. */
function chargedRange(interpreter: LimitedInterpreter, bounds: number[]): number[] {
  const [start, stop] = bounds.length < 2 ? [0, Number(bounds[0])] : [Number(bounds[0]), Number(bounds[1])];
  const step = bounds.length < 3 ? 1 : Number(bounds[2]);
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (!Number.isFinite(length)) throw new Error('range() needs whole numbers and a step');
  interpreter.charge(length);
  return Array.from({ length }, (_, index) => start + index * step);
}

function problemOf(error: unknown): PromptProblem {
  if (error instanceof TemplateRaised)
    return new PromptProblem('messages', `the chat template refuses these messages: ${error.message}`);
  if (error instanceof TemplateLimit) return new PromptProblem('package', `the template ${error.message}`);
  if (error instanceof RangeError)
    return new PromptProblem('package', 'the template calls itself too deeply or needs too much memory');
  return new PromptProblem('messages', `the chat template cannot render these messages: ${messageOf(error)}`);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
