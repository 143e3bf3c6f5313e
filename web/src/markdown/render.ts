// Markdown of a model, which nobody wrote on purpose and nobody checked, to DOM nodes that can do nothing:
// no HTML of its own, no images, no addresses but http, https and mailto; DOMPurify as the second lock.

import DOMPurify from 'dompurify';
import MarkdownIt from 'markdown-it';
import { highlight } from './highlight';

/** A block longer than this is shown as plain text: Markdown of that size is an accident. */
export const MAX_BLOCK = 60_000;
const LINK = /^(https?:|mailto:)/i;

const markdown = new MarkdownIt({ html: false, linkify: false, breaks: false });
markdown.validateLink = (address) => LINK.test(address.trim());

markdown.renderer.rules.image = (tokens, index) => {
  const token = tokens[index];
  const address = String(token?.attrGet('src') ?? '');
  const name = markdown.utils.escapeHtml(token?.content || address);
  return `<a class="image" href="${markdown.utils.escapeHtml(address)}">${name}</a>`;
};

markdown.renderer.rules.fence = (tokens, index) => {
  const token = tokens[index];
  return codeBlock(token?.content ?? '', token?.info.trim().split(/\s+/)[0] ?? '');
};
markdown.renderer.rules.code_block = (tokens, index) => codeBlock(tokens[index]?.content ?? '', '');

const tableOpen = () => '<div class="table" tabindex="0"><table>';
markdown.renderer.rules.table_open = tableOpen;
markdown.renderer.rules.table_close = () => '</table></div>';

function codeBlock(code: string, language: string): string {
  const escaped = markdown.utils.escapeHtml;
  const body = highlight(code, language.toLowerCase()) ?? escaped(code);
  const label = `<span class="language">${escaped(language.slice(0, 30))}</span>`;
  return `<div class="code"><div class="code-head">${label}</div><pre tabindex="0"><code>${body}</code></pre></div>`;
}

const ALLOWED = {
  ALLOWED_TAGS: [
    ...[
      'p',
      'br',
      'hr',
      'h1',
      'h2',
      'h3',
      'h4',
      'h5',
      'h6',
      'strong',
      'em',
      's',
      'code',
      'pre',
      'blockquote',
    ],
    ...['ul', 'ol', 'li', 'a', 'div', 'span', 'table', 'thead', 'tbody', 'tr', 'th', 'td'],
  ],
  ALLOWED_ATTR: ['href', 'class', 'start', 'tabindex', 'title'],
  ALLOWED_URI_REGEXP: LINK,
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true as const,
};

/** DOM nodes of one piece of Markdown. */
export function render(source: string): DocumentFragment {
  if (source.length > MAX_BLOCK) return plain(source);
  const fragment = DOMPurify.sanitize(markdown.render(source), ALLOWED);
  for (const link of fragment.querySelectorAll('a')) finishLink(link);
  return fragment;
}

/** Text as it is. One element for each 2000 characters lets the browser lay out a huge line in pieces. */
export function plain(source: string): DocumentFragment {
  const fragment = document.createDocumentFragment();
  const block = document.createElement('div');
  block.className = 'plain';
  for (let start = 0; start < source.length; start += 2000) {
    const piece = document.createElement('span');
    piece.textContent = source.slice(start, start + 2000);
    block.append(piece);
  }
  fragment.append(block);
  return fragment;
}

/** Links open elsewhere, tell nobody where from, and show where they lead. */
function finishLink(link: HTMLAnchorElement): void {
  const address = link.getAttribute('href');
  if (address === null) return;
  link.target = '_blank';
  link.rel = 'noopener noreferrer nofollow';
  link.title = address;
  const place =
    address
      .replace(/^mailto:/i, '')
      .replace(/^https?:\/\//i, '')
      .split('/')[0] ?? '';
  if (link.textContent?.includes(place)) return;
  const note = document.createElement('span');
  note.className = 'link-place';
  note.textContent = ` (${place})`;
  link.append(note);
}

/** Lines at which the top-level blocks of a text begin. */
export function blockStarts(source: string): number[] {
  return markdown
    .parse(source, {})
    .filter((token) => token.level === 0 && token.nesting >= 0 && token.map !== null)
    .map((token) => token.map?.[0] ?? 0);
}
