import { useLayoutEffect, useRef } from 'preact/hooks';
import { t } from '../i18n';
import { IncrementalMarkdown } from '../markdown/incremental';
import { announce } from '../state';
import { copyText } from './copying';

const ANNOUNCED = 1500; // characters of a block that are read aloud

/** Markdown that may still grow. Finished blocks get their copy buttons and, while it grows, are read aloud. */
export function MarkdownView({ text, done }: { text: string; done: boolean }) {
  const container = useRef<HTMLDivElement>(null);
  const view = useRef<IncrementalMarkdown | undefined>(undefined);
  const growing = useRef(false);
  useLayoutEffect(() => {
    if (container.current === null) return;
    growing.current ||= !done;
    view.current ??= new IncrementalMarkdown(container.current, (block) =>
      finishBlock(block, growing.current),
    );
    view.current.update(text, done);
  }, [text, done]);
  return <div class="markdown" ref={container} />;
}

function finishBlock(block: HTMLElement, aloud: boolean): void {
  if (aloud) announce((block.textContent ?? '').slice(0, ANNOUNCED));
  for (const code of block.querySelectorAll<HTMLElement>('.code')) addCopyButton(code);
}

function addCopyButton(code: HTMLElement): void {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'copy-code';
  button.textContent = t('copyCode');
  button.addEventListener('click', async () => {
    if (!(await copyText(code.querySelector('code')?.textContent ?? ''))) return;
    button.textContent = t('copied');
    setTimeout(() => {
      button.textContent = t('copyCode');
    }, 1500);
  });
  code.querySelector('.code-head')?.append(button);
}
