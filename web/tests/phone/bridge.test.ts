import { beforeEach, describe, expect, it } from 'vitest';
import { HostBridge, HostError } from '../../src/phone/bridge';

describe('HostBridge', () => {
  const sent: { id: number; method: string; params: unknown }[] = [];
  let bridge: HostBridge;
  const give = (message: unknown) => window.pocketglmReceive?.(JSON.stringify(message));

  beforeEach(() => {
    sent.length = 0;
    window.PocketGLMHost = { send: (text) => void sent.push(JSON.parse(text)) };
    bridge = new HostBridge();
  });

  it('gives each call its own answer, in whatever order they come', async () => {
    const calls = [bridge.call('device.info'), bridge.call('packages.list', { a: 1 })];
    expect(sent.map(({ method, params }) => [method, params])).toEqual([
      ['device.info', {}],
      ['packages.list', { a: 1 }],
    ]);
    give({ id: sent[1]?.id, result: { n: 2 } });
    give({ id: sent[0]?.id, result: { n: 1 } });
    expect(await Promise.all(calls)).toEqual([{ n: 1 }, { n: 2 }]);
  });

  it('throws what the host refuses, with its code and details', async () => {
    const call = bridge.call('packages.import', { kind: 'zip' });
    give({ id: sent[0]?.id, error: { code: 'storage', message: 'full', details: { needed: 5 } } });
    const error = await call.catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(HostError);
    expect(error).toMatchObject({ code: 'storage', message: 'full', details: { needed: 5 } });
  });

  it('takes an error without a code for a bug of the host', async () => {
    const call = bridge.call('device.info');
    give({ id: sent[0]?.id, error: {} });
    await expect(call).rejects.toMatchObject({ code: 'internal' });
  });

  it('tells listeners of events, and passes over what it does not know', () => {
    const heard: unknown[] = [];
    bridge.on('memory.low', (data) => heard.push(data));
    bridge.on('memory.low', (data) => heard.push(data));
    give({ event: 'memory.low', data: { severe: true } });
    give({ event: 'of.tomorrow', data: {} });
    give({ id: 12345, result: {} });
    give({ id: null, error: { code: 'request' } });
    expect(heard).toEqual([{ severe: true }, { severe: true }]);
  });

  it('says that it needs the app', async () => {
    delete window.PocketGLMHost;
    await expect(bridge.call('device.info')).rejects.toMatchObject({ code: 'internal' });
  });
});
