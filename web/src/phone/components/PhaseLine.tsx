import { dialog } from '../../state';
import type { Models } from '../models';
import { reasonOf } from '../reasons';
import { p } from '../texts';

/** In place of the figures while no model answers: why, and what can be done. */
export function PhaseLine({ models }: { models: Models }) {
  const chosen = models.chosen.value;
  const name = chosen?.name ?? '';
  switch (models.phase.value) {
    case 'starting':
      return (
        <p class="strip" role="status">
          {p('loading', { name })}
        </p>
      );
    case 'paused':
      return <p class="strip">{p('pausedLine', { name })}</p>;
    case 'failed':
      return (
        <div class="strip offline">
          <p role="alert">{p('failed', { name, reason: reasonOf(models.failure.value) })}</p>
          {chosen && (
            <button type="button" class="button" onClick={() => void models.start(chosen)}>
              {p('tryAgain')}
            </button>
          )}
        </div>
      );
    default:
      return (
        <p class="strip">
          {models.known.value && (
            <button type="button" class="button" aria-haspopup="dialog" onClick={openModels}>
              {p('chooseModel')}
            </button>
          )}
        </p>
      );
  }
}

export function openModels(): void {
  dialog.value = 'model';
}
