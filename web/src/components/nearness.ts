// Tells elements when the reader comes near them, so that a long conversation opens without rendering all of it.

const MARGIN = '1200px'; // about a screen and a half ahead of the reader
const waiting = new Map<Element, () => void>();
let observer: IntersectionObserver | undefined;

/** Calls back once when the element is near the visible part; returns what cancels it. */
export function whenNear(element: Element, callback: () => void): () => void {
  observer ??= new IntersectionObserver(notify, { rootMargin: MARGIN });
  waiting.set(element, callback);
  observer.observe(element);
  return () => forget(element);
}

function notify(entries: IntersectionObserverEntry[]): void {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    const callback = waiting.get(target);
    forget(target);
    callback?.();
  }
}

function forget(element: Element): void {
  waiting.delete(element);
  observer?.unobserve(element);
}
