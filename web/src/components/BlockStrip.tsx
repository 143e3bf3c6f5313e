import type { BlockPlace } from '../transport';

/** The model's blocks in order, coloured by the place where each runs. */
export function BlockStrip({ blocks }: { blocks: BlockPlace[] }) {
  return (
    <span class="blocks" aria-hidden="true">
      {blocks.map((block) => (
        <span
          key={block.index}
          class="cell"
          data-place={block.place}
          title={`${block.index}: ${nameOf(block)}`}
        />
      ))}
    </span>
  );
}

export interface Run {
  first: number;
  last: number;
  block: BlockPlace;
}

/** Runs of neighbouring blocks with the same engine and place. */
export function runsOf(blocks: BlockPlace[]): Run[] {
  const runs: Run[] = [];
  for (const block of blocks) {
    const run = runs.at(-1);
    if (run && nameOf(run.block) === nameOf(block)) run.last = block.index;
    else runs.push({ first: block.index, last: block.index, block });
  }
  return runs;
}

export function nameOf(block: BlockPlace): string {
  return block.place === '' ? block.engine : `${block.engine}, ${block.place}`;
}
