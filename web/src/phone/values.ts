// What the app says of packages, the phone and the engine, as values; what is missing counts as zero or empty.

import type { AnswerDefaults } from './answerDefaults';
import { number, record, text } from './bridge';

const CHOICE = 'pocketglm.engine';

export interface Package {
  id: string;
  name: string;
  complete: boolean;
  bytes: number;
  copied: number;
  family: string;
  blocks: number;
  contextLength: number;
  template: boolean;
}

export interface Device {
  version: string;
  freeMemory: number;
  totalMemory: number;
  freeStorage: number;
  cores: number;
  bigCores: number;
}

export interface Plan {
  fits: boolean;
  context: number;
  kv: string;
  threads: number;
  anonymous: number;
  weights: number;
  needed: number;
  free: number;
  streamed: boolean;
}

/** What the reader asks of the engine; a field that is left out is chosen by the app. */
export interface EngineChoice {
  context?: number | undefined;
  kv?: 'float16' | 'int8' | undefined;
  threads?: number | undefined;
}

/** A model in the engine. */
export interface Running {
  package: Package;
  plan: Plan;
  context: number;
  threads: number;
  blocks: number;
  weightBytes: number;
  streamedBytes: number;
  template: boolean;
  defaults: AnswerDefaults;
}

export function runningOf(
  wanted: Package,
  started: Record<string, unknown>,
  prompts: { template: boolean; defaults: AnswerDefaults },
): Running {
  const loaded = record(started.loaded);
  return {
    package: wanted,
    plan: planOf(started.plan),
    context: number(loaded.context),
    threads: number(loaded.threads),
    blocks: number(loaded.blocks),
    weightBytes: number(loaded.weight_bytes),
    streamedBytes: number(loaded.streamed_bytes),
    ...prompts,
  };
}

export function planOf(value: unknown): Plan {
  const plan = record(value);
  return {
    fits: plan.fits === true,
    context: number(plan.context),
    kv: text(plan.kv),
    threads: number(plan.threads),
    anonymous: number(plan.anonymous),
    weights: number(plan.weights),
    needed: number(plan.needed),
    free: number(plan.free),
    streamed: plan.streamed === true,
  };
}

export function packageOf(value: unknown): Package {
  const found = record(value);
  return {
    id: text(found.id),
    name: text(found.name),
    complete: found.complete === true,
    bytes: number(found.bytes),
    copied: number(found.copied),
    family: text(found.family),
    blocks: number(found.blocks),
    contextLength: number(found.contextLength),
    template: found.template === true,
  };
}

export function deviceOf(info: Record<string, unknown>): Device {
  const memory = record(info.memory);
  return {
    version: text(info.version),
    freeMemory: number(memory.free),
    totalMemory: number(memory.total),
    freeStorage: number(record(info.storage).free),
    cores: number(info.cores),
    bigCores: number(info.bigCores),
  };
}

export function storedChoice(): EngineChoice {
  try {
    const { context, kv, threads } = record(JSON.parse(localStorage.getItem(CHOICE) ?? '{}'));
    return {
      ...(number(context) > 0 ? { context: number(context) } : {}),
      ...(kv === 'float16' || kv === 'int8' ? { kv } : {}),
      ...(number(threads) > 0 ? { threads: number(threads) } : {}),
    };
  } catch {
    return {};
  }
}

export function storeChoice(choice: EngineChoice): void {
  localStorage.setItem(CHOICE, JSON.stringify(choice));
}
