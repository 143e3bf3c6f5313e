// The worker in which prompts are made and tokens become text: a long prompt does not stop the page, and a
// template or pattern that never ends can be ended. Requests and answers carry a number.

import type { ChatMessage } from '../../transport';
import type { StreamDecoder } from './decoding';
import { PromptProblem } from './problem';
import { ChatTemplate } from './template';
import { Tokenizer } from './tokenizer';

export type Request = { id: number } & (
  | { do: 'load'; tokenizer: string; template: string | undefined }
  | { do: 'encode'; messages: ChatMessage[] }
  | { do: 'begin'; stream: number }
  | { do: 'push'; stream: number; tokens: number[] }
  | { do: 'finish'; stream: number }
);

export type Response =
  | { id: number; result: unknown }
  | { id: number; problem: { kind: 'package' | 'messages'; message: string } };

let tokenizer: Tokenizer | undefined;
let template: ChatTemplate | undefined;
const streams = new Map<number, StreamDecoder>();

addEventListener('message', ({ data }: MessageEvent<Request>) => {
  postMessage(answer(data));
});

function answer(request: Request): Response {
  try {
    return { id: request.id, result: perform(request) };
  } catch (error) {
    const kind = error instanceof PromptProblem ? error.kind : 'package';
    return {
      id: request.id,
      problem: { kind, message: error instanceof Error ? error.message : String(error) },
    };
  }
}

function perform(request: Request): unknown {
  switch (request.do) {
    case 'load':
      return load(request.tokenizer, request.template);
    case 'encode':
      if (template === undefined) throw new PromptProblem('package', 'the package has no chat template');
      return template.encode(request.messages);
    case 'begin':
      streams.set(request.stream, loaded().stream());
      return null;
    case 'push':
      return request.tokens.map((token) => streams.get(request.stream)?.push(token) ?? '');
    case 'finish': {
      const rest = streams.get(request.stream)?.finish() ?? '';
      streams.delete(request.stream);
      return rest;
    }
  }
}

function load(json: string, source: string | undefined): number {
  tokenizer = undefined;
  template = undefined;
  streams.clear();
  const made = new Tokenizer(json);
  if (source !== undefined) template = new ChatTemplate(source, made);
  tokenizer = made;
  return made.vocabSize;
}

function loaded(): Tokenizer {
  if (tokenizer === undefined) throw new PromptProblem('package', 'no tokenizer is loaded');
  return tokenizer;
}
