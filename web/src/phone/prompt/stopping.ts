// Stop strings in streamed text: nothing of one is ever shown. The twin of Python's generate/stop.py.

export class StopMatcher {
  private held = '';
  matched = false;

  constructor(private readonly stops: readonly string[]) {}

  /** Text that may be shown now. After a match nothing more comes. */
  feed(text: string): string {
    if (this.matched) return '';
    this.held += text;
    const places = this.stops.map((stop) => this.held.indexOf(stop)).filter((place) => place >= 0);
    if (places.length > 0) {
      this.matched = true;
      const shown = this.held.slice(0, Math.min(...places));
      this.held = '';
      return shown;
    }
    const keep = Math.max(0, ...this.stops.map((stop) => overlap(this.held, stop)));
    return this.release(this.held.length - keep);
  }

  /** The text held back, at the end of the answer. */
  flush(): string {
    return this.release(this.held.length);
  }

  private release(length: number): string {
    const shown = this.held.slice(0, length);
    this.held = this.held.slice(length);
    return shown;
  }
}

/** Length of the longest end of `text` that is a proper beginning of `stop`. */
export function overlap(text: string, stop: string): number {
  for (let size = Math.min(text.length, stop.length - 1); size > 0; size--)
    if (text.endsWith(stop.slice(0, size))) return size;
  return 0;
}
