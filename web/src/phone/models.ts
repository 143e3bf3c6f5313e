// The models on the phone: what is there, which one runs, what is being imported. Signals hold what is shown.

import { batch, signal } from '@preact/signals';
import { type AnswerDefaults, readDefaults } from './answerDefaults';
import { type Bridge, HostError, number, text } from './bridge';
import type { Engine } from './engine';
import { PromptProblem } from './prompt/problem';
import type { Prompter } from './prompt/prompter';
import {
  type Device,
  deviceOf,
  type EngineChoice,
  type Package,
  type Plan,
  packageOf,
  planOf,
  type Running,
  runningOf,
  storeChoice,
  storedChoice,
} from './values';

/**
 * idle: no model was chosen. starting: one is being loaded. ready: it answers. paused: stopped to free memory,
 * starts with the next message. failed: it did not start, or ends again and again.
 */
export type Phase = 'idle' | 'starting' | 'ready' | 'paused' | 'failed';

export interface Importing {
  bytes: number;
  total: number;
  file: string;
}

export type Notice = 'restarted' | 'memoryLow' | 'memoryStopped' | 'paused';

const LAST = 'pocketglm.package';
const STARTING = 'pocketglm.starting'; // still there at the next start: the app ended while it loaded this
const MOST_RESTARTS = 2; // in a row, without an answer between them

export class Models {
  readonly packages = signal<Package[]>([]);
  readonly device = signal<Device | undefined>(undefined);
  readonly phase = signal<Phase>('idle');
  readonly chosen = signal<Package | undefined>(undefined);
  readonly running = signal<Running | undefined>(undefined);
  readonly failure = signal<Error | undefined>(undefined);
  readonly importing = signal<Importing | undefined>(undefined);
  readonly importFailure = signal<Error | undefined>(undefined);
  readonly added = signal<Package | undefined>(undefined); // by the last import
  readonly plans = signal<ReadonlyMap<string, Plan>>(new Map()); // of those that do not run
  readonly problem = signal<Error | undefined>(undefined); // of anything but a start or an import
  readonly notice = signal<Notice | undefined>(undefined);
  readonly choice = signal<EngineChoice>(storedChoice());
  readonly known = signal(false); // whether the list was read

  /** Ends the running answer; the shell sets it. */
  stopAnswer: () => void = () => undefined;

  private restarts = 0;
  private ends = 0; // of the engine, unexpected ones
  private opening: Promise<void> = Promise.resolve();
  private starting: Promise<void> = Promise.resolve();

  constructor(
    private readonly bridge: Bridge,
    private readonly engine: Engine,
    private readonly prompter: Prompter,
    private readonly base = new URL('.', document.baseURI),
  ) {
    bridge.on('import.progress', (data) => {
      const file = text(data.file);
      this.importing.value = { bytes: number(data.bytes), total: number(data.total), file };
    });
    bridge.on('engine.exit', (data) => this.engineEnded(data.expected === true));
    bridge.on('memory.low', (data) => this.memoryLow(data.severe === true));
  }

  /** Reads what is there and starts the model that ran last, unless the app ended while loading it. */
  open(): Promise<void> {
    this.opening = this.openLast();
    return this.opening;
  }

  private async openLast(): Promise<void> {
    // The system may have ended the page alone: nobody waits for an answer that it had asked for.
    await this.engine.stopAll().catch(() => undefined); // an error where no engine runs
    await this.refresh();
    this.known.value = true;
    const last = this.packages.value.find(({ id }) => id === localStorage.getItem(LAST));
    const broken = localStorage.getItem(STARTING);
    localStorage.removeItem(STARTING);
    if (last?.complete && last.id !== broken) await this.begin(last);
  }

  refresh(): Promise<void> {
    return this.attempt(() => this.read());
  }

  private async read(): Promise<void> {
    const [device, list] = await Promise.all([
      this.bridge.call('device.info'),
      this.bridge.call('packages.list'),
    ]);
    this.device.value = deviceOf(device);
    this.packages.value = (Array.isArray(list.packages) ? list.packages : []).map(packageOf);
    await this.planAll();
  }

  /** Loads a package in place of the one that runs. What goes wrong is in `failure`. */
  start(wanted: Package): Promise<void> {
    this.stopAnswer();
    this.restarts = 0;
    return this.begin(wanted);
  }

  /** Resolves when a model answers; undefined where none does. */
  async ready(): Promise<Running | undefined> {
    await this.opening;
    await this.starting;
    if (this.phase.value === 'paused' && this.chosen.value !== undefined) await this.begin(this.chosen.value);
    return this.phase.value === 'ready' ? this.running.value : undefined;
  }

  /** An answer came to its end: the engine works. */
  answered(): void {
    this.restarts = 0;
  }

  choose(choice: EngineChoice): void {
    this.choice.value = choice;
    storeChoice(choice);
    void this.planAll();
  }

  /** Has the reader choose a package and copies it. The first one is loaded at once. */
  async add(kind: 'zip' | 'folder'): Promise<void> {
    this.importFailure.value = undefined;
    this.importing.value = { bytes: 0, total: 0, file: '' };
    try {
      const found = packageOf((await this.bridge.call('packages.import', { kind })).package);
      this.added.value = found;
      if (this.chosen.value === undefined) void this.start(found);
    } catch (error) {
      if (!(error instanceof HostError && error.code === 'cancelled'))
        this.importFailure.value = asError(error);
    } finally {
      this.importing.value = undefined;
      await this.refresh();
    }
  }

  cancelImport(): Promise<void> {
    return this.act(async () => void (await this.bridge.call('import.cancel')));
  }

  async rename({ id }: Package, name: string): Promise<void> {
    await this.act(async () => {
      const renamed = packageOf((await this.bridge.call('packages.rename', { package: id, name })).package);
      if (this.chosen.value?.id === id) this.chosen.value = renamed;
    });
    await this.refresh();
  }

  /** Deletes a package; the engine is stopped first where it runs this one. */
  async delete({ id }: Package): Promise<void> {
    if (this.chosen.value?.id === id) await this.leave();
    await this.act(async () => void (await this.bridge.call('packages.delete', { package: id })));
    await this.refresh();
  }

  /** Stops the engine; no model is chosen any more. */
  async leave(): Promise<void> {
    this.stopAnswer();
    await this.starting;
    await this.act(async () => void (await this.bridge.call('engine.stop')));
    this.phase.value = 'idle';
    this.chosen.value = undefined;
    this.running.value = undefined;
    localStorage.removeItem(LAST);
  }

  /** After what is being loaded now. An answer that waits for a model is not stopped. */
  private begin(wanted: Package): Promise<void> {
    this.starting = this.starting.then(() => this.load(wanted));
    return this.starting;
  }

  private async load(wanted: Package): Promise<void> {
    this.chosen.value = wanted;
    this.running.value = undefined;
    this.failure.value = undefined;
    this.phase.value = 'starting';
    localStorage.setItem(STARTING, wanted.id);
    try {
      const prompts = this.loadPrompts(wanted);
      prompts.catch(() => undefined); // reported below, after the engine's own troubles
      const params = { package: wanted.id, ...this.choice.value };
      const started = await this.bridge.call('engine.start', params);
      const ends = this.ends;
      const running = runningOf(wanted, started, await prompts);
      batch(() => {
        this.running.value = running;
        this.phase.value = 'ready';
      });
      if (this.ends !== ends) this.startAgain();
      localStorage.setItem(LAST, wanted.id);
    } catch (error) {
      this.failure.value = asError(error);
      this.phase.value = 'failed';
    } finally {
      localStorage.removeItem(STARTING);
    }
  }

  /** Something that the reader asked for: an older problem is no longer told. */
  private act(action: () => Promise<void>): Promise<void> {
    this.problem.value = undefined;
    return this.attempt(action);
  }

  private async attempt(action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      this.problem.value = asError(error);
    }
  }

  /** How the engine would run each package that it does not run now. */
  private async planAll(): Promise<void> {
    const others = this.packages.value.filter(
      ({ id, complete }) => complete && id !== this.running.value?.package.id,
    );
    const plans = others.map(async ({ id }): Promise<[string, Plan]> => {
      return [id, planOf(await this.bridge.call('engine.plan', { package: id, ...this.choice.value }))];
    });
    const found = await Promise.allSettled(plans); // a package may be gone meanwhile
    this.plans.value = new Map(found.flatMap((plan) => (plan.status === 'fulfilled' ? [plan.value] : [])));
  }

  /** Gives the worker the package's tokenizer and template. */
  private async loadPrompts({ id }: Package): Promise<{ template: boolean; defaults: AnswerDefaults }> {
    const names = ['tokenizer.json', 'chat_template.jinja', 'generation.json'];
    const [tokenizer, template, settings] = await Promise.all(names.map((name) => this.file(id, name)));
    if (tokenizer === undefined) throw new PromptProblem('package', 'the package has no tokenizer.json');
    await this.prompter.load(tokenizer, template);
    return { template: template !== undefined, defaults: readDefaults(settings) };
  }

  /** A package's small file; undefined where it has none. */
  private async file(id: string, name: string): Promise<string | undefined> {
    const response = await fetch(new URL(`packages/${encodeURIComponent(id)}/${name}`, this.base));
    if (response.status === 404) return undefined;
    if (!response.ok) throw new HostError('damaged', `${name}: ${response.status}`, { file: name });
    return response.text();
  }

  private engineEnded(expected: boolean): void {
    if (expected) return;
    this.ends++;
    if (this.phase.value === 'ready') this.startAgain();
  }

  private startAgain(): void {
    if (this.chosen.value === undefined) return;
    this.running.value = undefined;
    if (this.restarts >= MOST_RESTARTS) {
      this.failure.value = new HostError('crashed', 'the engine ends again and again');
      this.phase.value = 'failed';
      return;
    }
    this.restarts++;
    const wanted = this.chosen.value;
    void this.begin(wanted).then(() => {
      if (this.phase.value === 'ready') this.notice.value = 'restarted';
    });
  }

  private memoryLow(severe: boolean): void {
    if (!severe) this.notice.value = 'memoryLow';
    else if (this.engine.answering) {
      this.notice.value = 'memoryStopped';
      this.stopAnswer();
    } else if (this.phase.value === 'ready') {
      batch(() => {
        this.notice.value = 'paused';
        this.phase.value = 'paused';
        this.running.value = undefined;
      });
      this.bridge.call('engine.stop').catch(() => undefined);
    }
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
