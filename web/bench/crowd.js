// The longest tasks of the page with 500 machines, each with an hour of values, and a new round each time that it asks.
// make bench runs it. It prints figures, and asserts nothing: on a busy host any task takes long.

import assert from "node:assert/strict";
import { open, patience } from "../test/world.js";

const visits = 5;

/** Waits until something is true. */
async function until(is, what) {
  const end = Date.now() + patience;
  while (!(await is())) {
    assert.ok(Date.now() < end, what);
    await new Promise((done) => setTimeout(done, 500));
  }
}

/** Makes a page see 500 machines, each with an hour of values, and one more round each time that it asks. */
async function crowd(page) {
  const [vm] = JSON.parse(await world.banger("inspect", "busy"));
  const id = (i) => String(i).padStart(32, "0");
  const ids = Array.from({ length: 500 }, (_, i) => id(i));
  const vms = ids.map((id, i) => ({ ...vm, id, name: `vm-${i}` }));
  const values = (n) => Array.from({ length: n }, (_, i) => Math.round(((i * 7919) % 1000) * 1e5) / 1e8);
  const use = (n) => Object.fromEntries(["cpu", "memory", "net_in", "net_out", "disk_read", "disk_written"].map((k) => [k, values(n)]));
  let step = 1000;
  const rounds = { seen: 0 };
  const answer = (route, lines) => route.fulfill({ contentType: "application/x-ndjson", body: lines.map((l) => `${JSON.stringify(l)}\n`).join("") });
  await page.route("**/v1/events*", (route) => answer(route, route.request().url().includes("since") ? [] : [{ cursor: "000000000000-1", state: true, vms }]));
  await page.route("**/v1/metrics*", (route) => {
    const now = { step: ++step, at: new Date(), cursor: "000000000000-1" };
    rounds.seen++;
    if (route.request().url().includes("since")) return answer(route, [{ ...now, vms: ids, now: use(500) }]);
    return answer(route, [{ state: true, step, at: now.at }, ...ids.map((vm) => ({ vm, hour: use(360) })), now]);
  });
  return rounds;
}

const world = await open();
try {
  await world.banger("run", "-d", "--name", "busy", "debian-bookworm", "--", "sleep", "infinity");
  const page = await world.visit("/?q=nothing");
  await page.getByRole("heading", { name: "Machines" }).waitFor();
  const rounds = await crowd(page);
  await page.addInitScript(() => {
    globalThis.long = [];
    const tell = (list) => globalThis.long.push(...list.getEntries().map((e) => e.duration));
    new PerformanceObserver(tell).observe({ type: "longtask", buffered: true });
  });
  for (let visit = 1; visit <= visits; visit++) {
    rounds.seen = 0;
    await page.goto(new URL("/?sort=-cpu", page.url()).href);
    await page.locator("svg.cpu path[d*=L]").first().waitFor({ state: "attached" });
    await until(() => rounds.seen > 4, "the page does not ask for more");
    const long = await page.evaluate(() => globalThis.long);
    console.log(`ui: visit ${visit}: ${long.length} tasks over 50 ms${long.length ? `, ${Math.max(...long)} ms the longest` : ""}`);
  }
} finally {
  await world.close();
}
