/** Entry of the bundle: what anywidget loads for each output that shows a run, or checkpoints. */

import type { AnyModel } from "@anywidget/types";
import type { ToBrowser as ToShelf } from "@quarterdeck/protocol/checkpoints";
import type { ToBrowser } from "@quarterdeck/protocol/run";
import { Browser, h, STYLES, View } from "@quarterdeck/views";

interface Traits {
  /** Which view the model is of; runs have no word for it. */
  view?: "checkpoints";
  opens_output: boolean;
}

interface Rendering {
  model: AnyModel<Traits>;
  el: HTMLElement;
  /** Given by newer versions of anywidget; the older ones call what `render` returns. */
  signal?: AbortSignal;
}

/** What a view is to this file: an element that takes messages. */
interface Shown {
  readonly el: HTMLElement;
  start(): void;
  take(message: object, buffers: DataView[]): void;
  dispose(): void;
}

function viewOf(model: AnyModel<Traits>): Shown {
  if (model.get("view") === "checkpoints") {
    const view = new Browser((message) => model.send(message));
    return { el: view.el, start: () => view.start(), take: (message) => view.take(message as ToShelf), dispose: () => view.dispose() };
  }
  const view = new View((message) => model.send(message), { opensOutput: model.get("opens_output") });
  const take = (message: object, buffers: DataView[]): void => view.take(message as ToBrowser, buffers);
  return { el: view.el, start: () => view.start(), take, dispose: () => view.dispose() };
}

function render({ model, el, signal }: Rendering): () => void {
  const view = viewOf(model);
  const take = (message: unknown, buffers: DataView[]): void => {
    if (typeof message === "object" && message !== null && "kind" in message) view.take(message, buffers);
  };
  view.el.prepend(h("style", null, STYLES));
  el.append(view.el);
  model.on("msg:custom", take);
  const end = (): void => {
    model.off("msg:custom", take);
    view.dispose();
  };
  signal?.addEventListener("abort", end, { once: true });
  view.start();
  return end;
}

export default { render };
