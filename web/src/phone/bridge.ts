// Calls to the app around the page, and what it reports: docs/android-bridge.md.

/** Why a call failed: a code of the bridge's page, and numbers and names to tell it with. */
export class HostError extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly details: Record<string, unknown> = {},
  ) {
    super(message);
    this.name = 'HostError';
  }
}

type Listener = (data: Record<string, unknown>) => void;

export interface Bridge {
  call(method: string, params?: Record<string, unknown>): Promise<Record<string, unknown>>;
  /** Calls back for every event of this name. */
  on(event: string, listener: Listener): void;
}

declare global {
  interface Window {
    PocketGLMHost?: { send(text: string): void };
    pocketglmReceive?: (text: string) => void;
  }
}

interface Waiting {
  resolve: (result: Record<string, unknown>) => void;
  reject: (error: HostError) => void;
}

export class HostBridge implements Bridge {
  private nextId = 1;
  private readonly waiting = new Map<number, Waiting>();
  private readonly listeners = new Map<string, Listener[]>();

  constructor(private readonly shell: Window = window) {
    shell.pocketglmReceive = (text) => this.receive(text);
  }

  call(method: string, params: Record<string, unknown> = {}): Promise<Record<string, unknown>> {
    const id = this.nextId++;
    return new Promise((resolve, reject) => {
      const host = this.shell.PocketGLMHost;
      if (host === undefined) {
        reject(new HostError('internal', 'This page runs inside the PocketGLM app only'));
        return;
      }
      this.waiting.set(id, { resolve, reject });
      host.send(JSON.stringify({ id, method, params }));
    });
  }

  on(event: string, listener: Listener): void {
    this.listeners.set(event, [...(this.listeners.get(event) ?? []), listener]);
  }

  private receive(text: string): void {
    const message = record(JSON.parse(text));
    if (typeof message.event === 'string')
      for (const listener of this.listeners.get(message.event) ?? []) listener(record(message.data));
    else if (typeof message.id === 'number') this.answer(message.id, message);
  }

  private answer(id: number, message: Record<string, unknown>): void {
    const waiting = this.waiting.get(id);
    this.waiting.delete(id);
    if (message.error === undefined) waiting?.resolve(record(message.result));
    else waiting?.reject(errorOf(record(message.error)));
  }
}

function errorOf(error: Record<string, unknown>): HostError {
  const code = typeof error.code === 'string' ? error.code : 'internal';
  const message = typeof error.message === 'string' ? error.message : '';
  return new HostError(code, message, record(error.details));
}

export function record(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

export function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

export function number(value: unknown): number {
  return typeof value === 'number' && Number.isFinite(value) ? value : 0;
}
