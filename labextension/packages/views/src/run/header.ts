/** Head of the view: name, state, time, pace, Stop; below it what a run that is over came to. */

import type { State } from "@quarterdeck/protocol/run";

import { fill, h, setAttr, setText, show } from "../basics/dom";
import { icon } from "../basics/icons";
import type { Panel, Send } from "../basics/panel";
import { duration, rate, wholeDuration } from "../basics/words";
import { attempt, elapsed, isLive, ranksWord, sentence, stateWords } from "./run_words";
import { stopButton } from "./stop_button";

export function header(send: Send): Panel<State> {
  const title = h("h2", { class: "qd-title qd-el" });
  const word = h("span");
  const pill = h("span", { class: "qd-st qd-pill", role: "status" });
  const time = fact();
  const tries = fact();
  const pace = fact();
  const ranks = fact();
  const resumed = fact();
  const facts = h("div", { class: "qd-facts" }, time.el, tries.el, pace.el, ranks.el, resumed.el);
  const stop = stopButton(send);
  const top = h("header", { class: "qd-head" }, title, pill, facts, stop.el);
  const words = h("div", { class: "qd-words", hidden: true });
  const said = h("span", { class: "qd-sr", "aria-live": "assertive" });
  const el = h("div", null, top, words, said);
  let shown: State | null = null;
  let ahead = 0;
  let drawn = "";

  const tick = (): void => {
    if (!shown) return;
    const { run } = shown;
    const seconds = elapsed(run, Date.now() - ahead);
    const words = isLive(run) ? wholeDuration : duration;
    time.put(isLive(run) ? "elapsed" : "after", seconds === null ? "" : words(seconds));
  };
  const mark = (state: State): void => {
    const { icon: name, tone, word: text } = stateWords(state.run, state.ranks);
    if (drawn !== name) fill(pill, icon(name), word);
    drawn = name;
    setText(word, text);
    setAttr(pill, "class", `qd-st qd-pill qd-st-${tone}`);
    setAttr(pill, "aria-live", "polite");
  };
  const timer = setInterval(tick, 1000);
  return {
    el,
    update(state) {
      shown = state;
      const { run } = state;
      ahead = Date.now() - run.now_ms;
      setText(title, run.name || "Run");
      setAttr(title, "title", run.name);
      mark(state);
      tick();
      const [front = "", ...rest] = attempt(run).split(" ");
      tries.put(front, run.attempts > 1 && run.state !== "restarting" ? rest.join(" ") : "");
      pace.put("", isLive(run) ? rate(state.steps_per_s) : "");
      ranks.put("", ranksWord(run.world_size));
      resumed.put("", run.resumed);
      setAttr(resumed.el, "class", run.resumed.startsWith("resumed") ? "" : "qd-fact-warn");
      setText(words, sentence(run.words));
      show(words, run.words !== "" && !isLive(run) && run.state !== "succeeded");
      setAttr(words, "class", run.state === "failed" || run.state === "lost" ? "qd-words qd-words-err" : "qd-words");
      setText(said, run.state === "failed" ? run.words : "");
      stop.update(run);
    },
    dispose() {
      clearInterval(timer);
      stop.dispose();
    },
  };
}

interface Fact {
  el: HTMLElement;
  put(label: string, value: string): void;
}

function fact(): Fact {
  const label = h("span", { class: "qd-dim" });
  const value = h("span");
  const el = h("span", { hidden: true }, label, " ", value);
  const put = (name: string, text: string): void => {
    setText(label, name);
    show(label, name !== "");
    setText(value, text);
    show(el, text !== "");
  };
  return { el, put };
}
