// A growing Markdown text in a DOM element. Finished blocks are rendered once and left alone; only the last one,
// which may still change, is rendered again. So a long answer costs the same at its end as at its start.

import { blockStarts, MAX_BLOCK, plain, render } from './render';

// After a slow rendering this many times its duration is left to the rest of the page.
const REST = 4;

export class IncrementalMarkdown {
  private source = '';
  private settled = 0; // characters of the source whose blocks are final
  private readonly tail: HTMLElement;
  private shown = ''; // the source of the tail as last rendered
  private notBefore = 0;
  private oversized = false; // the tail's block is past the limit: not parsed again

  /** `onBlock` is called with each final block's element, in order. */
  constructor(
    private readonly container: HTMLElement,
    private readonly onBlock: (block: HTMLElement) => void = () => undefined,
  ) {
    this.tail = document.createElement('div');
    this.tail.className = 'block';
    container.replaceChildren(this.tail);
  }

  /** Shows this text; `done` says that it will not grow any more. */
  update(source: string, done: boolean): void {
    if (!source.startsWith(this.source)) this.reset();
    const begun = performance.now();
    if (!done && begun < this.notBefore) return;
    this.source = source;
    this.settle();
    const rest = source.slice(this.settled);
    if (done) this.finish(rest);
    else this.show(rest);
    const cost = performance.now() - begun;
    this.notBefore = begun + cost * (1 + REST);
  }

  private reset(): void {
    this.settled = 0;
    this.shown = '';
    this.oversized = false;
    this.container.replaceChildren(this.tail);
    this.tail.replaceChildren();
  }

  /** Moves every block but the last out of the tail, looking at no more than the limit at once. */
  private settle(): void {
    for (;;) {
      const rest = this.source.slice(this.settled);
      const tooLong = rest.length > MAX_BLOCK;
      const moved = this.oversized || !rest.includes('\n') ? 0 : this.settleBlocks(rest.slice(0, MAX_BLOCK));
      if (moved === 0 && tooLong) this.oversized = true;
      const settled = moved > 0 ? moved : tooLong ? this.settleOversized(rest) : 0;
      if (settled === 0) return;
      this.settled += settled;
      this.shown = '';
      if (!tooLong) return;
    }
  }

  /** Renders the final blocks of a piece; how many characters they are. */
  private settleBlocks(piece: string): number {
    const lines = lineOffsets(piece);
    const starts = blockStarts(piece).map((line) => lines[line] ?? piece.length);
    for (let index = 0; index + 1 < starts.length; index++) {
      this.append(piece.slice(starts[index], starts[index + 1]));
    }
    return starts.length > 1 ? (starts.at(-1) ?? 0) : 0;
  }

  /** A block past the limit ends at the next empty line. */
  private settleOversized(rest: string): number {
    const end = rest.indexOf('\n\n', MAX_BLOCK);
    if (end < 0) return 0;
    this.append(rest.slice(0, end + 2));
    this.oversized = false;
    return end + 2;
  }

  private append(source: string): void {
    const block = document.createElement('div');
    block.className = 'block';
    block.append(render(source));
    this.container.insertBefore(block, this.tail);
    this.onBlock(block);
  }

  /** A tail past the limit grows as plain text: what is new is added and nothing is parsed again. */
  private show(rest: string): void {
    if (rest === this.shown) return;
    if (rest.length <= MAX_BLOCK) this.tail.replaceChildren(render(rest));
    else if (this.shown.length > MAX_BLOCK) this.tail.append(plain(rest.slice(this.shown.length)));
    else this.tail.replaceChildren(plain(rest));
    this.shown = rest;
  }

  private finish(rest: string): void {
    this.show(rest);
    if (rest.trim() !== '') this.onBlock(this.tail);
  }
}

function lineOffsets(text: string): number[] {
  const offsets = [0];
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) offsets.push(at + 1);
  return offsets;
}
