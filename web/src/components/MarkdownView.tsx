import { useLayoutEffect, useRef } from 'preact/hooks';
import { t } from '../i18n';
import { IncrementalMarkdown } from '../markdown/incremental';
import { plain } from '../markdown/render';
import { announce } from '../state';
import { copyText } from './copying';
import { whenNear } from './nearness';

const ANNOUNCED = 1500; // characters of a block that are read aloud

interface Props {
  text: string;
  done: boolean;
  eager: boolean; // rendered at once; else as plain text until the reader comes near
}

/** Markdown that may still grow. Finished blocks get their copy buttons and, while it grows, are read aloud. */
export function MarkdownView({ text, done, eager }: Props) {
  const container = useRef<HTMLDivElement>(null);
  const view = useRef<IncrementalMarkdown | undefined>(undefined);
  const growing = useRef(false);
  useLayoutEffect(() => {
    const element = container.current;
    if (element === null) return;
    growing.current ||= !done;
    const show = () => {
      view.current ??= new IncrementalMarkdown(element, (block) => finishBlock(block, growing.current));
      view.current.update(text, done);
    };
    if (view.current !== undefined || eager || growing.current) {
      show();
      return;
    }
    element.replaceChildren(plain(text));
    return whenNear(element.closest('article') ?? element, show);
  }, [text, done, eager]);
  return <div class="markdown" dir="auto" ref={container} />;
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
