import assert from "node:assert/strict";
import { test } from "node:test";

import { escaped, fileName, heightOf, themed, wrapped } from "../src/decks/deck_page";

test("the theme stands before anything that the page holds", () => {
  const page = themed('<!doctype html><html data-theme="light"><body>x</body></html>', "dark");
  assert.ok(page.startsWith('<!doctype html><html data-theme="dark">'));
});

test("a deck's own tab keeps it in a sandbox without the notebook's origin", () => {
  const page = wrapped('"><script>alert(1)</script>', '<p title="a">&amp;</p><script>x()</script>', "dark");
  assert.equal(page.match(/<script/g)?.length, 1);
  assert.ok(page.indexOf("<script") > page.indexOf("</iframe>"));
  assert.equal(page.match(/sandbox="([^"]*)"/)?.[1], "allow-scripts");
  const inner = page.match(/srcdoc="([^"]*)"/)?.[1] ?? "";
  const back = inner.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&quot;", '"').replaceAll("&amp;", "&");
  assert.equal(back, themed('<p title="a">&amp;</p><script>x()</script>', "dark"));
});

test("escaped text cannot end an attribute or begin an element", () => {
  assert.equal(escaped('<a b="c">&lt;'), "&lt;a b=&quot;c&quot;&gt;&amp;lt;");
});

test("file names hold nothing that a file system minds", () => {
  assert.equal(fileName("../../etc/passwd", null), "_.._etc_passwd.html");
  assert.equal(fileName("val samples", 2), "val samples-rank-2.html");
  assert.equal(fileName("...", null), "deck.html");
  assert.equal(fileName("<b>\n:", 0), "_b_-rank-0.html");
});

test("only a finite height is believed, and only within bounds", () => {
  assert.equal(heightOf({ quarterdeck: "height", px: 300.2 }), 301);
  assert.equal(heightOf({ quarterdeck: "height", px: 1 }), 120);
  assert.equal(heightOf({ quarterdeck: "height", px: 1e9 }), 2_000);
  for (const bad of [null, 3, "height", {}, { quarterdeck: "height" }, { quarterdeck: "x", px: 3 }])
    assert.equal(heightOf(bad), null);
  for (const px of [NaN, Infinity, "300", null]) assert.equal(heightOf({ quarterdeck: "height", px }), null);
});
