// The page's shell inside the Android app.

import type { Shell } from '../shell';
import type { Bridge } from './bridge';
import { ImportProgress } from './components/Importing';
import { ModelsDialog } from './components/ModelsDialog';
import { PhaseLine } from './components/PhaseLine';
import { Welcome } from './components/Welcome';
import type { Models } from './models';
import { p } from './texts';
import type { PhoneTransport } from './transport';

export function phoneShell(bridge: Bridge, models: Models, transport: PhoneTransport): Shell {
  return {
    transport,
    memory: localStorage, // the app has one window, and the system may end it at any time
    keyboard: false,
    copy: async (text) => void (await bridge.call('clipboard.write', { text })),
    saveFile: async (name, text) => void (await bridge.call('files.save', { name, text })),
    modelName: () => (models.known.value ? (models.chosen.value?.name ?? p('models')) : undefined),
    ModelDialog: () => <ModelsDialog models={models} />,
    Offline: () => <PhaseLine models={models} />,
    Notices: () => <ImportProgress models={models} />,
    Welcome: () => <Welcome models={models} />,
    needsWelcome: () => models.known.value && models.chosen.value === undefined,
  };
}
