/** Entry of the bundle: what anywidget loads for each output that shows a run. */

import type { AnyModel } from "@anywidget/types";

import { h } from "./dom";
import type { ToBrowser } from "./protocol";
import { STYLES } from "./styles";
import { View } from "./view";

interface Traits {
  beside_output: boolean;
}

interface Rendering {
  model: AnyModel<Traits>;
  el: HTMLElement;
  /** Given by newer versions of anywidget; the older ones call what `render` returns. */
  signal?: AbortSignal;
}

function render({ model, el, signal }: Rendering): () => void {
  const view = new View((message) => model.send(message), { besideOutput: model.get("beside_output") !== false });
  const take = (message: unknown, buffers: DataView[]): void => {
    if (typeof message === "object" && message !== null && "kind" in message) view.take(message as ToBrowser, buffers);
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
