/** Stop: the first click asks; the button then says how far that has come, and after 5 s offers to kill. */

import type { RunHead } from "@quarterdeck/protocol/run";

import { fill, h, setAttr, setText, show } from "../basics/dom";
import { icon } from "../basics/icons";
import type { Panel, Send } from "../basics/panel";

const LADDER_MS = 1000;
const KILL_MS = 5000;

export function stopButton(send: Send): Panel<RunHead> {
  const word = h("span", null, "Stop");
  const button = h("button", { class: "qd-btn qd-btn-danger", type: "button" });
  const words = h("span", { class: "qd-s qd-dim qd-el", "aria-live": "polite" });
  const el = h("div", { class: "qd-row qd-stop", hidden: true }, words, button);
  let asked: number | null = null;
  let run: RunHead | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let drawn = "";

  const draw = (): void => {
    clearTimeout(timer);
    const since = asked === null ? 0 : performance.now() - asked;
    const phase = asked === null ? "Stop" : since < KILL_MS ? "Stopping" : "Kill";
    if (phase !== drawn) fill(button, icon(phase === "Stopping" ? "arc" : phase === "Kill" ? "failed" : "stop"), word);
    drawn = phase;
    setText(word, phase);
    setAttr(button, "disabled", phase === "Stopping");
    setAttr(button, "title", phase === "Kill" ? "End the ranks at once; their variables are lost" : "Stop this run");
    setText(words, since < LADDER_MS ? "" : (run?.stopping ?? ""));
    if (asked !== null && since < KILL_MS) timer = setTimeout(draw, since < LADDER_MS ? LADDER_MS - since : KILL_MS - since);
  };
  button.addEventListener("click", () => {
    asked = performance.now();
    send({ kind: "stop" });
    draw();
  });
  return {
    el,
    update(next) {
      run = next;
      show(el, next.can_stop);
      if (!next.can_stop) asked = null;
      else if (next.stopping !== "") asked ??= performance.now() - LADDER_MS;
      draw();
    },
    dispose: () => clearTimeout(timer),
  };
}
