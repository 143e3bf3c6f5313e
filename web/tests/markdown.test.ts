import { describe, expect, it } from 'vitest';
import { IncrementalMarkdown } from '../src/markdown/incremental';
import { MAX_BLOCK, render } from '../src/markdown/render';

const SOURCE = `# Title

A paragraph with *emphasis*
over two lines.

1. one

2. two
   - inner

\`\`\`python
x = 1

y = 2
\`\`\`

| a | b |
| - | - |
| 1 | 2 |

> quoted

last`;

function html(source: string): string {
  const box = document.createElement('div');
  box.append(render(source));
  return box.innerHTML;
}

/** The text as it looks when it came in pieces of this size. */
function grown(source: string, size: number, blocks: string[] = []): string {
  const box = document.createElement('div');
  const view = new IncrementalMarkdown(box, (block) => blocks.push(block.textContent ?? ''));
  for (let end = size; end < source.length; end += size) view.update(source.slice(0, end), false);
  view.update(source, true);
  return [...box.children].map((block) => block.innerHTML).join('');
}

describe('render', () => {
  it.each([
    ['<script>alert(1)</script>', 'script'],
    ['<img src=x onerror=alert(1)>', 'img'],
    ['![a](https://example.com/a.png)', 'img'],
    ['<iframe src="https://example.com"></iframe>', 'iframe'],
  ])('makes no element of %s', (source, selector) => {
    expect(render(source).querySelector(selector)).toBeNull();
  });

  it.each([
    'javascript:alert(1)',
    'JAVASCRIPT&colon;alert(1)',
    'data:text/html,x',
    'vbscript:x',
    'file:///etc/passwd',
  ])('makes no link to %s', (address) => {
    expect(render(`[a](${address}) <${address}>`).querySelector('a[href]')).toBeNull();
  });

  it('shows where a link leads', () => {
    const link = render('[bank](https://evil.example/a)').querySelector('a');
    expect(link?.textContent).toBe('bank (evil.example)');
    expect(link?.rel).toContain('noopener');
  });

  it('keeps a language name from becoming markup', () => {
    expect(html('```"><b>\nx\n```')).not.toContain('<b>');
  });

  it('shows what is too long as it is', () => {
    expect(render('*a* '.repeat(MAX_BLOCK)).querySelector('em')).toBeNull();
  });
});

describe('IncrementalMarkdown', () => {
  it.each([1, 2, 7, 40, 10_000])('gives the same in pieces of %i characters as at once', (size) => {
    expect(grown(SOURCE, size).replaceAll('\n', '')).toBe(html(SOURCE).replaceAll('\n', ''));
  });

  it('reports every block once, in order', () => {
    const blocks: string[] = [];
    grown(SOURCE, 5, blocks);
    expect(blocks).toHaveLength(7);
    expect(blocks[0]).toBe('Title\n');
    expect(blocks[6]).toBe('last\n');
  });

  it('starts again when the text is another one', () => {
    const box = document.createElement('div');
    const view = new IncrementalMarkdown(box);
    view.update('# One\n\ntwo\n\nthree', true);
    view.update('# Other', true);
    expect(box.textContent?.trim()).toBe('Other');
  });

  it('renders a long answer made of ordinary blocks whole', () => {
    const long = Array.from(
      { length: 3000 },
      (_, index) => `**Paragraph** number ${index} with words.\n\n`,
    ).join('');
    const box = document.createElement('div');
    new IncrementalMarkdown(box).update(long, true);
    expect(box.querySelectorAll('strong')).toHaveLength(3000);
  });

  it('goes back to Markdown after a block that is too long', () => {
    const box = document.createElement('div');
    new IncrementalMarkdown(box).update(`${'x'.repeat(MAX_BLOCK * 2)}\n\n**bold**\n\nend`, true);
    expect(box.querySelector('strong')?.textContent).toBe('bold');
  });
});
