"""Measures how fast the view draws: the first picture, then 20 updates a second of 8 ranks and 4 metrics.

For whoever changes the curves: `npm run build && python dev/pace.py`. Prints milliseconds;
the browser's own processor time counts where the machine is busy with other things.
"""

from __future__ import annotations

import psutil
from shots import opened

FIRST = """() => new Promise(done => {
  const messages = window.scenes.heavy();
  const points = messages[1][0].series.reduce((n, s) => n + s.count, 0);
  const began = performance.now();
  void window.mount();
  messages.forEach(([m, floats]) => window.feed(m, floats));
  const wait = () => {
    const drawn = [...document.querySelectorAll(".qd-plot canvas")].length;
    if (drawn < 4) return requestAnimationFrame(wait);
    requestAnimationFrame(() => done([performance.now() - began, points]));
  };
  requestAnimationFrame(wait);
})"""

STEADY = """seconds => new Promise(done => {
  const [, [curves]] = window.scenes.heavy();
  const series = curves.series.map(head => ({ ...head, start: head.count - 4, count: 4 }));
  const columns = Array.from({ length: 6 }, (_, column) => column);
  const floats = () => Float64Array.from(series.flatMap(head => columns.flatMap(column =>
    [0, 1, 2, 3].map(i => column === 0 ? head.start + i : column === 1 ? 100 * (head.start + i)
      : Math.random()))));
  const frames = [];
  let [last, count, busy] = [0, 0, 0];
  const end = performance.now() + 1000 * seconds;
  const feed = setInterval(() => {
    const began = performance.now();
    window.feed({ ...curves, series, whole: false }, floats());
    busy += performance.now() - began;
    count += 1;
  }, 50);
  const frame = now => {
    if (last) frames.push(now - last);
    last = now;
    if (now < end) return requestAnimationFrame(frame);
    clearInterval(feed);
    frames.sort((a, b) => a - b);
    const at = share => frames[Math.floor(share * (frames.length - 1))];
    done({ updates: count, frames: frames.length, p50: at(.5), p95: at(.95), p99: at(.99), most: at(1),
           within33: frames.filter(f => f <= 34).length / frames.length, take: busy / count });
  };
  requestAnimationFrame(frame);
})"""


def cpu_s() -> float:
    """CPU seconds that the browser has used, in all of its processes."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        if "chrom" in process.name():
            total += sum(process.cpu_times()[:2])
    return total


def main() -> None:
    with opened() as page:
        first, points = page.evaluate(FIRST)
        print(f"first picture: {first:.0f} ms for {points:,} points that stand for 10^6")
        page.wait_for_timeout(500)
        before = cpu_s()
        found = page.evaluate(STEADY, 5)
        found["cpu"] = 1000 * (cpu_s() - before) / found["updates"]
        print({name: round(value, 3) for name, value in found.items()}, "load", psutil.getloadavg()[0])


if __name__ == "__main__":
    main()
