// The page inside the Android app: models are on the phone, the engine answers over the app's bridge.

import { effect, untracked } from '@preact/signals';
import { replaceTexts } from '../i18n';
import { showPage } from '../page';
import { announce, toast } from '../state';
import { closeByBack } from './back';
import { HostBridge } from './bridge';
import { Engine } from './engine';
import { Models } from './models';
import { Prompter } from './prompt/prompter';
import { reasonOf } from './reasons';
import { phoneShell } from './shell';
import { p, REPLACED } from './texts';
import { PhoneTransport } from './transport';
import './phone.css';

replaceTexts(REPLACED);
const bridge = new HostBridge();
const engine = new Engine(bridge);
const prompter = new Prompter(
  () => new Worker(new URL('./prompt/worker.ts', import.meta.url), { type: 'module' }),
);
const models = new Models(bridge, engine, prompter);
const chat = showPage(phoneShell(bridge, models, new PhoneTransport(models, engine, prompter)));

models.stopAnswer = () => chat.stop();
closeByBack();
effect(() => {
  models.phase.value;
  models.running.value;
  untracked(() => void chat.refreshStatus());
});
effect(() => {
  const notice = models.notice.value;
  if (notice === undefined) return;
  untracked(() => {
    toast(p(notice));
    announce(p(notice));
    models.notice.value = undefined;
  });
});
effect(() => {
  const problem = models.problem.value;
  if (problem !== undefined) untracked(() => toast(reasonOf(problem)));
});
effect(() => {
  const added = models.added.value;
  if (added !== undefined) untracked(() => toast(p('imported', { name: added.name })));
});
void models.open();
