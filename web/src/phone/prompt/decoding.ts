// From token ids to text: the bytes of each token, and a decoder that streams them without ever showing
// half a character. The twin of Python's generate/detokenizer.py.

import { step as checkedStep, type Step, steps } from './document';
import { PromptProblem } from './problem';

export interface Decoding {
  byteLevel: boolean;
  byteFallback: boolean;
  replacements: [string, string][];
  stripCharacter: string;
  stripCount: number;
}

const BYTE_TOKEN = /^<0x([0-9A-Fa-f]{2})>$/;
const BYTE_OF = byteOfCharacters();

/** GPT-2's printable character for every byte, which byte-level vocabularies are written in. */
function byteOfCharacters(): Map<string, number> {
  const printable = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  const table = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++)
    table.set(String.fromCharCode(printable(byte) ? byte : next++), byte);
  return table;
}

/** Raises a PromptProblem for a decoder that is not byte-level nor SentencePiece-like. */
export function readDecoding(decoder: unknown): Decoding {
  const whole = checkedStep(decoder, 'decoder');
  const all = whole.type === 'Sequence' ? steps(whole.decoders, 'decoder') : [whole];
  const decoding: Decoding = {
    byteLevel: false,
    byteFallback: false,
    replacements: [],
    stripCharacter: '',
    stripCount: 0,
  };
  let fused = false;
  for (const step of all) {
    if (fused && step.type !== 'Strip' && step.type !== 'Fuse') throw unsupported(step);
    fused ||= step.type === 'Fuse';
    add(decoding, step, fused);
  }
  return decoding;
}

function add(decoding: Decoding, step: Step, fused: boolean): void {
  const found = (step.pattern as { String?: unknown } | undefined)?.String;
  if (step.type === 'ByteLevel') decoding.byteLevel = true;
  else if (step.type === 'ByteFallback') decoding.byteFallback = true;
  else if (step.type === 'Fuse') return;
  else if (step.type === 'Replace' && typeof found === 'string')
    decoding.replacements.push([found, String(step.content)]);
  else if (step.type === 'Metaspace') {
    decoding.replacements.push([String(step.replacement), ' ']);
    if (step.prepend_scheme !== 'never') [decoding.stripCharacter, decoding.stripCount] = [' ', 1];
  } else if (step.type === 'Strip' && fused && !step.stop)
    [decoding.stripCharacter, decoding.stripCount] = [String(step.content), Number(step.start)];
  else throw unsupported(step);
}

function unsupported(step: Step): PromptProblem {
  return new PromptProblem('package', `tokenizer.json: the decoder step ${step.type} is not supported`);
}

/** UTF-8 bytes that a token stands for; `plain` tokens are written as they are in the text. */
export function tokenBytes(token: string, plain: boolean, decoding: Decoding): Uint8Array {
  const byte = decoding.byteFallback ? BYTE_TOKEN.exec(token) : null;
  if (byte !== null) return Uint8Array.of(Number.parseInt(byte[1] as string, 16));
  let text = token;
  for (const [old, replacement] of decoding.replacements) text = text.replaceAll(old, () => replacement);
  const bytes = decoding.byteLevel && !plain ? [...text].map((character) => BYTE_OF.get(character)) : [];
  if (bytes.length > 0 && bytes.every((value) => value !== undefined)) return Uint8Array.from(bytes);
  return new TextEncoder().encode(text);
}

/** Turns token ids into text as they come; an incomplete character waits for its remaining bytes. */
export class StreamDecoder {
  private readonly utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
  private stripLeft: number;

  constructor(
    private readonly bytesOf: (id: number) => Uint8Array,
    private readonly decoding: Decoding,
  ) {
    this.stripLeft = decoding.stripCount;
  }

  /** Adds one token; the new text, which may be empty. */
  push(id: number): string {
    return this.stripped(this.utf8.decode(this.bytesOf(id), { stream: true }));
  }

  /** Ends the text; the rest, with U+FFFD in place of bytes that are no UTF-8. */
  finish(): string {
    return this.stripped(this.utf8.decode());
  }

  /** Without the blanks that stand for the start of the text. */
  private stripped(text: string): string {
    let start = 0;
    while (this.stripLeft > 0 && start < text.length) {
      if (text[start] !== this.decoding.stripCharacter) this.stripLeft = 0;
      else {
        start++;
        this.stripLeft--;
      }
    }
    return text.slice(start);
  }
}
