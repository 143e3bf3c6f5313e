import type { Models } from '../models';
import { EXPORT_COMMAND } from '../reasons';
import { p } from '../texts';
import { ImportButtons } from './Importing';
import { openModels } from './PhaseLine';

/** What a new conversation shows while no model was chosen. */
export function Welcome({ models }: { models: Models }) {
  if (models.packages.value.some(({ complete }) => complete))
    return (
      <div class="empty">
        <h2>{p('chooseModel')}</h2>
        <p class="quiet">{p('welcomeChoose')}</p>
        <button
          type="button"
          class="button primary welcome-choose"
          aria-haspopup="dialog"
          onClick={openModels}
        >
          {p('models')}
        </button>
      </div>
    );
  const [before, after] = p('welcomeText', { command: '\n' }).split('\n');
  return (
    <div class="empty">
      <h2>{p('welcomeTitle')}</h2>
      <p class="quiet">
        {before}
        <code>{EXPORT_COMMAND}</code>
        {after}
      </p>
      <ImportButtons models={models} />
    </div>
  );
}
