import { beforeEach, describe, expect, it } from 'vitest';
import { PromptProblem } from '../../src/phone/prompt/problem';
import { PACKAGE, type Phone, phone, refusal } from './app';

const CRASH = { code: 139, signal: 11, expected: false };
const settled = () => new Promise((resolve) => setTimeout(resolve, 0));

describe('Models', () => {
  let made: Phone;
  beforeEach(() => {
    localStorage.clear();
    made = phone();
  });

  it('loads the model that ran last', async () => {
    await made.models.open();
    expect(made.models.phase.value).toBe('idle');
    await made.models.start({ ...PACKAGE });
    const next = phone();
    await next.models.open();
    expect(next.models.phase.value).toBe('ready');
    expect(next.models.running.value?.package.id).toBe(PACKAGE.id);
  });

  it('does not load again what the app ended with', async () => {
    localStorage.setItem('pocketglm.package', PACKAGE.id);
    localStorage.setItem('pocketglm.starting', PACKAGE.id);
    await made.models.open();
    expect(made.models.phase.value).toBe('idle');
    expect(made.app.count('engine.start')).toBe(0);
    const next = phone(); // once only
    await next.models.open();
    expect(next.models.phase.value).toBe('ready');
  });

  it('ends the answer that an earlier run of the page had asked for', async () => {
    await made.models.open();
    expect(made.app.lines[0]).toEqual({ command: 'stop' });
  });

  it('is there although the app cannot say what is', async () => {
    made.app.answers['packages.list'] = refusal('internal');
    await made.models.open();
    expect(made.models.known.value).toBe(true);
    expect(made.models.problem.value).toMatchObject({ code: 'internal' });
  });

  it('has a message wait for the model that is being loaded', async () => {
    localStorage.setItem('pocketglm.package', PACKAGE.id);
    let stopped = false;
    made.models.stopAnswer = () => {
      stopped = true;
    };
    void made.models.open();
    expect((await made.models.ready())?.package.id).toBe(PACKAGE.id);
    expect(stopped).toBe(false);
  });

  it('starts the engine again after a crash, twice in a row at most', async () => {
    await made.models.start({ ...PACKAGE });
    for (const starts of [2, 3, 3]) {
      made.app.event('engine.exit', CRASH);
      await settled();
      expect(made.app.count('engine.start')).toBe(starts);
    }
    expect(made.models.phase.value).toBe('failed');
    expect(made.models.failure.value).toMatchObject({ code: 'crashed' });
  });

  it('starts the engine again that ended while the tokenizer was read', async () => {
    const start = made.app.answers['engine.start'];
    made.app.answers['engine.start'] = (params) => {
      if (made.app.count('engine.start') === 1) setTimeout(() => made.app.event('engine.exit', CRASH), 5);
      return start?.(params) ?? {};
    };
    const answer = globalThis.fetch;
    globalThis.fetch = async (address) => {
      await new Promise((resolve) => setTimeout(resolve, 20));
      return answer(address);
    };
    await made.models.start({ ...PACKAGE });
    await made.models.ready();
    expect(made.app.count('engine.start')).toBe(2);
    expect(made.models.phase.value).toBe('ready');
  });

  it('counts from the start again after an answer', async () => {
    await made.models.start({ ...PACKAGE });
    for (let crash = 0; crash < 5; crash++) {
      made.app.event('engine.exit', CRASH);
      await settled();
      made.models.answered();
    }
    expect(made.models.phase.value).toBe('ready');
    expect(made.models.notice.value).toBe('restarted');
  });

  it('does not start what was stopped on purpose', async () => {
    await made.models.start({ ...PACKAGE });
    made.app.event('engine.exit', { code: 0, expected: true });
    await settled();
    expect(made.app.count('engine.start')).toBe(1);
  });

  it('gives the memory back when it is scarce and nothing is answered, until the next message', async () => {
    await made.models.start({ ...PACKAGE });
    made.app.event('memory.low', { level: 15, severe: true });
    expect(made.models.phase.value).toBe('paused');
    expect(made.app.count('engine.stop')).toBe(1);
    expect((await made.models.ready())?.package.id).toBe(PACKAGE.id);
    expect(made.models.phase.value).toBe('ready');
  });

  it('only says so while it is not severe', async () => {
    await made.models.start({ ...PACKAGE });
    made.app.event('memory.low', { level: 10, severe: false });
    expect(made.models.phase.value).toBe('ready');
    expect(made.models.notice.value).toBe('memoryLow');
  });

  it('fails for a model that does not fit, and for a package without a tokenizer', async () => {
    made.app.answers['engine.start'] = refusal('memory', { needed: 5, free: 3 });
    await made.models.start({ ...PACKAGE });
    expect(made.models.failure.value).toMatchObject({ code: 'memory', details: { needed: 5, free: 3 } });
    const bare = phone();
    globalThis.fetch = async () => new Response('', { status: 404 });
    await bare.models.start({ ...PACKAGE });
    expect(bare.models.phase.value).toBe('failed');
    expect(bare.models.failure.value).toBeInstanceOf(PromptProblem);
  });

  it('fails for a small file that was damaged', async () => {
    globalThis.fetch = async () => new Response('', { status: 403 });
    await made.models.start({ ...PACKAGE });
    expect(made.models.failure.value).toMatchObject({ code: 'damaged' });
  });

  it('stops the model in use before it is deleted', async () => {
    await made.models.start({ ...PACKAGE });
    await made.models.delete({ ...PACKAGE });
    const names = made.app.calls.map(([name]) => name);
    expect(names.indexOf('engine.stop')).toBeLessThan(names.indexOf('packages.delete'));
    expect(names).toContain('engine.stop');
    expect(localStorage.getItem('pocketglm.package')).toBeNull();
  });

  it('keeps what cannot be renamed under its name, and says why', async () => {
    made.app.answers['packages.rename'] = refusal('missing');
    await made.models.rename({ ...PACKAGE }, 'other');
    expect(made.models.problem.value).toMatchObject({ code: 'missing' });
    await made.models.cancelImport(); // the next thing that is done takes the note away
    expect(made.models.problem.value).toBeUndefined();
  });

  it('says nothing when the reader goes back from the picker', async () => {
    made.app.answers['packages.import'] = refusal('cancelled');
    await made.models.add('zip');
    expect(made.models.importFailure.value).toBeUndefined();
    expect(made.models.importing.value).toBeUndefined();
  });

  it.each(['{"context":2048,"kv":"int4","threads":-1}', '[', '"x"', '{"context":"8"}'])(
    'passes over choices that make no sense: %s',
    (stored) => {
      localStorage.setItem('pocketglm.engine', stored);
      const { context, kv, threads } = phone().models.choice.value;
      expect(context === undefined || context === 2048).toBe(true);
      expect([kv, threads]).toEqual([undefined, undefined]);
    },
  );
});
