// Android's back button: the app goes back in the page's history where it can, and leaves the screen where it
// cannot. So what is open above the conversation has an entry there, and going back closes it.

import { computed, effect, untracked } from '@preact/signals';
import { dialog, listOpen } from '../state';

const OPEN = 'open'; // the entry's state

export function closeByBack(): void {
  const anything = computed(() => dialog.value !== undefined || listOpen.value);
  let entered = false;
  let leaving = false; // what was open was closed otherwise; the history follows a moment later
  const follow = () => {
    if (leaving || anything.value === entered) return;
    entered = anything.value;
    leaving = !entered;
    if (entered) history.pushState(OPEN, '');
    else history.back();
  };
  if (history.state === OPEN) history.back(); // of an earlier run of the page
  addEventListener('popstate', () => {
    if (entered && !leaving) {
      entered = false;
      if (dialog.value !== undefined) dialog.value = undefined;
      else listOpen.value = false;
    }
    leaving = false;
    follow(); // something else may have been opened, or be open below
  });
  effect(() => {
    anything.value;
    untracked(follow);
  });
}
