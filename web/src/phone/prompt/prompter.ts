// The page's side of the worker: prompts and texts on request, and an end to work that does not end.

import type { ChatMessage } from '../../transport';
import { PromptProblem } from './problem';
import type { Request, Response } from './worker';

const PATIENCE_MILLISECONDS = 60_000; // a phone reads the largest tokenizer in a few seconds

interface Waiting {
  resolve: (result: unknown) => void;
  reject: (error: Error) => void;
}

// Omit of a union loses what tells its members apart.
type Asked<R> = R extends unknown ? Omit<R, 'id'> : never;

export class Prompter {
  private worker: Worker | undefined;
  private next = 1;
  private readonly waiting = new Map<number, Waiting>();

  constructor(
    private readonly makeWorker: () => Worker,
    private readonly patience = PATIENCE_MILLISECONDS,
  ) {}

  /** Reads a package's tokenizer and template. Resolves to the number of tokens. */
  async load(tokenizer: string, template: string | undefined): Promise<number> {
    this.end(new PromptProblem('package', 'another package was loaded'));
    return Number(await this.ask({ do: 'load', tokenizer, template }));
  }

  async encode(messages: ChatMessage[]): Promise<number[]> {
    return (await this.ask({ do: 'encode', messages })) as number[];
  }

  /** A decoder of one answer's tokens. */
  async stream(): Promise<TextStream> {
    const stream = this.next++;
    await this.ask({ do: 'begin', stream });
    return {
      push: async (tokens) => (await this.ask({ do: 'push', stream, tokens })) as string[],
      finish: async () => String(await this.ask({ do: 'finish', stream })),
    };
  }

  private ask(request: Asked<Request>): Promise<unknown> {
    const id = this.next++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.giveUp(), this.patience);
      const after = (done: () => void) => {
        clearTimeout(timer);
        this.waiting.delete(id);
        done();
      };
      this.waiting.set(id, {
        resolve: (result) => after(() => resolve(result)),
        reject: (error) => after(() => reject(error)),
      });
      this.running().postMessage({ ...request, id });
    });
  }

  private running(): Worker {
    if (this.worker !== undefined) return this.worker;
    const worker = this.makeWorker();
    worker.onmessage = ({ data }: MessageEvent<Response>) => this.take(data);
    worker.onerror = (event) => this.end(new PromptProblem('package', event.message || 'the worker failed'));
    this.worker = worker;
    return worker;
  }

  private take(response: Response): void {
    const waiting = this.waiting.get(response.id);
    if ('result' in response) waiting?.resolve(response.result);
    else waiting?.reject(new PromptProblem(response.problem.kind, response.problem.message));
  }

  private giveUp(): void {
    this.end(new PromptProblem('package', 'the chat template or tokenizer takes too long'));
  }

  private end(reason: PromptProblem): void {
    this.worker?.terminate();
    this.worker = undefined;
    for (const waiting of [...this.waiting.values()]) waiting.reject(reason);
  }
}

export interface TextStream {
  /** The text that each token adds. */
  push(tokens: number[]): Promise<string[]>;
  finish(): Promise<string>;
}
