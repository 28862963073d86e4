import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { ALIVE_MS, Link } from "../src/basics/link";

/** A page that can be out of sight, and a clock that goes as fast as the test wants. */
class Page extends EventTarget {
  hidden = false;

  turn(hidden: boolean): void {
    this.hidden = hidden;
    this.dispatchEvent(new Event("visibilitychange"));
  }
}

function linked(during: (page: Page, pass: (ms: number) => void, link: Link<{ kind: string }>, told: string[], ended: AbortController) => void): void {
  const [page, told, ended] = [new Page(), [] as string[], new AbortController()];
  const [now, before] = [performance.now, globalThis.document];
  let at = 0;
  performance.now = () => at;
  Object.assign(globalThis, { document: page });
  mock.timers.enable({ apis: ["setInterval"] });
  const link = new Link<{ kind: string }>((message) => void told.push(message.kind));
  link.start({ beat: () => undefined, back: (hiddenMs) => void told.push(`back after ${hiddenMs}`) }, ended.signal);
  const pass = (ms: number): void => {
    for (const end = at + ms; at < end; ) {
      at += 1000;
      mock.timers.tick(1000);
    }
  };
  try {
    during(page, pass, link, told, ended);
  } finally {
    mock.timers.reset();
    Object.assign(globalThis, { document: before });
    performance.now = now;
  }
}

test("a page in sight that has said nothing for long says that it is there", () => {
  linked((_page, pass, link, told) => {
    pass(ALIVE_MS);
    assert.deepEqual(told, []);
    link.send({ kind: "sync" });
    pass(ALIVE_MS);
    assert.deepEqual(told, ["sync"]);
    pass(1000);
    assert.deepEqual(told, ["sync", "alive"]);
    pass(2 * (ALIVE_MS + 1000));
    assert.deepEqual(told, ["sync", "alive", "alive", "alive"]);
  });
});

test("a page out of sight says nothing, and its view hears for how long it was", () => {
  linked((page, pass, _link, told) => {
    page.turn(true);
    pass(3 * ALIVE_MS);
    assert.deepEqual(told, []);
    page.turn(false);
    assert.deepEqual(told, [`back after ${3 * ALIVE_MS}`]);
  });
});

test("a view that is gone says nothing any more", () => {
  linked((page, pass, _link, told, ended) => {
    ended.abort();
    pass(3 * ALIVE_MS);
    page.turn(false);
    assert.deepEqual(told, []);
  });
});
