import { beforeEach, describe, expect, it } from 'vitest';
import { closeByBack } from '../../src/phone/back';
import { dialog, listOpen } from '../../src/state';

const settled = () => new Promise((resolve) => setTimeout(resolve, 20));

async function back(): Promise<void> {
  history.back();
  await settled();
}

describe('the back button', () => {
  closeByBack();

  beforeEach(async () => {
    dialog.value = undefined;
    listOpen.value = false;
    await settled();
    expect(history.state).toBeNull();
  });

  it('closes a dialog, and then has nothing to close', async () => {
    dialog.value = 'model';
    expect(history.state).toBe('open');
    await back();
    expect(dialog.value).toBeUndefined();
    expect(history.state).toBeNull();
  });

  it('is not needed for what was closed otherwise', async () => {
    dialog.value = 'settings';
    dialog.value = undefined;
    await settled();
    expect(history.state).toBeNull();
  });

  it('closes what is above first', async () => {
    listOpen.value = true;
    dialog.value = 'model';
    await back();
    expect([dialog.value, listOpen.value]).toEqual([undefined, true]);
    expect(history.state).toBe('open');
    await back();
    expect(listOpen.value).toBe(false);
    expect(history.state).toBeNull();
  });

  it('closes what was opened while the history was still following', async () => {
    listOpen.value = true;
    listOpen.value = false;
    dialog.value = 'settings';
    await settled();
    expect(dialog.value).toBe('settings');
    expect(history.state).toBe('open');
    await back();
    expect(dialog.value).toBeUndefined();
    expect(history.state).toBeNull();
  });
});
