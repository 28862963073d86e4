/** Makes and changes elements. Text is always a text node: nothing from a run is ever parsed as HTML. */

export type Child = Node | string | number | null | undefined | false | readonly Child[];

type Handlers = { [K in keyof HTMLElementEventMap]?: (event: HTMLElementEventMap[K]) => void };

/** Attributes by their HTML names; `true` is an empty attribute, `false` and null leave it away. */
export interface Props {
  readonly on?: Handlers | undefined;
  readonly [attribute: string]: Handlers | string | number | boolean | null | undefined;
}

/** `h("button", { class: "qd-btn", on: { click } }, "Stop")` */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props | null = null,
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (name === "on") listen(el, value as Handlers | undefined);
    else setAttr(el, name, value as string | number | boolean | null | undefined);
  }
  append(el, children);
  return el;
}

function listen(el: HTMLElement, handlers: Handlers | undefined): void {
  for (const [type, handler] of Object.entries(handlers ?? {})) {
    el.addEventListener(type, handler as EventListener);
  }
}

function append(parent: Node, children: readonly Child[]): void {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) append(parent, child as readonly Child[]);
    else if (child instanceof Node) parent.appendChild(child);
    else parent.appendChild(document.createTextNode(String(child)));
  }
}

/** Replaces the children of an element. */
export function fill(el: HTMLElement, ...children: Child[]): void {
  const all = document.createDocumentFragment();
  append(all, children);
  el.replaceChildren(all);
}

/** Sets an attribute only if it differs, so that nothing is laid out again for nothing. */
export function setAttr(el: Element, name: string, value: string | number | boolean | null | undefined): void {
  if (value === null || value === undefined || value === false) {
    if (el.hasAttribute(name)) el.removeAttribute(name);
    return;
  }
  const text = value === true ? "" : String(value);
  if (el.getAttribute(name) !== text) el.setAttribute(name, text);
}

/** Sets the text of an element that holds only text, if it differs. */
export function setText(el: Element, text: string): void {
  if (el.textContent !== text) el.textContent = text;
}

export function show(el: HTMLElement, shown: boolean): void {
  if (el.hidden === shown) el.hidden = !shown;
}

/** Arrow keys, Home and End move the focus among the elements that `selector` finds in `box`. */
export function arrows(box: HTMLElement, selector: string, signal?: AbortSignal): void {
  const steps: Record<string, number> = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  const move = (event: KeyboardEvent): void => {
    const all = [...box.querySelectorAll<HTMLElement>(selector)].filter((el) => el.offsetParent !== null);
    const at = all.indexOf(event.target as HTMLElement);
    const step = steps[event.key];
    const ends: Record<string, number> = { Home: 0, End: all.length - 1 };
    const next = step === undefined ? ends[event.key] : (at + step + all.length) % all.length;
    if (at < 0 || next === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    all[next]?.focus();
  };
  box.addEventListener("keydown", move, signal ? { signal } : {});
}
