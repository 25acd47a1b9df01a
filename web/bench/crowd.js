// The longest tasks of the page with 500 machines, each with an hour of values: while a new round of values comes each
// half second, then also with 1,000 changes of machines a second, and at last with 1,000 connections a second of one
// machine. make bench runs it. It prints figures, and asserts nothing: on a busy host any task takes long.

import assert from "node:assert/strict";
import { open, patience } from "../test/world.js";

const visits = 5;
const machines = 500;
const rate = 1000; // changes a second
const piece = 64 << 10; // bytes of a message
const pause = 20; // milliseconds between two groups of changes

/** Waits until something is true. */
async function until(is, what) {
  const end = Date.now() + patience;
  while (!(await is())) {
    assert.ok(Date.now() < end, what);
    await new Promise((done) => setTimeout(done, 500));
  }
}

/** Makes a page see machines, each with an hour of values, and rounds of values that go on. The returned object counts the
 * rounds and the changes, and has the changes begin. */
async function crowd(page) {
  const [vm] = JSON.parse(await world.banger("inspect", "busy"));
  const ids = Array.from({ length: machines }, (_, i) => String(i).padStart(32, "0"));
  const vms = [vm, ...ids.map((id, i) => ({ ...vm, id, name: `vm-${i}` }))];
  const values = (n) => Array.from({ length: n }, (_, i) => Math.round(((i * 7919) % 1000) * 1e5) / 1e8);
  const use = (n) => Object.fromEntries(["cpu", "memory", "net_in", "net_out", "disk_read", "disk_written"].map((k) => [k, values(n)]));
  const seen = { rounds: 0, changes: 0, decisions: 0, begin: () => {} };
  const timers = new Set();
  /** Answers a path as the UI's process does, and calls each again and again until the page has gone. */
  const answer = (path, first, every, each) =>
    page.routeWebSocket(path, (ws) => {
      const tell = (lines) => {
        const bytes = Buffer.from(lines.map((l) => `${JSON.stringify(l)}\n`).join(""));
        for (let at = 0; at < bytes.length; at += piece) ws.send(bytes.subarray(at, at + piece));
      };
      ws.onMessage(() => {
        ws.send("{}");
        tell(first());
        const timer = setInterval(() => each(tell), every);
        timers.add(timer);
        ws.onClose(() => clearInterval(timer));
      });
    });
  let step = 1000;
  const round = (tell) => {
    seen.rounds++;
    tell([{ step: ++step, at: new Date(), cursor: "000000000000-1", vms: ids, now: use(machines) }]);
  };
  await answer(/\/v1\/metrics/, () => [{ state: true, step, at: new Date() }, ...ids.map((vm) => ({ vm, hour: use(360) })), { step, at: new Date(), cursor: "000000000000-1" }], 500, round);
  let changing = false;
  seen.begin = () => (changing = true);
  const states = ["running", "paused"];
  const change = (tell) => {
    if (!changing) return;
    const some = Array.from({ length: (rate * pause) / 1000 }, () => {
      const n = ++seen.changes;
      return { cursor: `000000000000-${n + 1}`, vm: { ...vms[1 + ((n * 7) % machines)], state: states[Math.floor(n / machines) % 2] } };
    });
    tell(some);
  };
  const decisions = (tell) => {
    tell(Array.from({ length: (rate * pause) / 1000 }, () => ({ time: new Date(), protocol: "tcp", address: "192.0.2.1", port: ++seen.decisions % 65536, process: "curl", rule: "allow any", allowed: true })));
  };
  await answer(/\/decisions/, () => [], pause, decisions);
  await answer(/\/v1\/events/, () => [{ cursor: "000000000000-1", state: true, vms }], pause, change);
  seen.end = () => timers.forEach(clearInterval);
  return seen;
}

/** Prints the tasks of a page that were too long, and forgets them. */
async function figure(page, what) {
  const long = await page.evaluate(() => globalThis.long.splice(0));
  console.log(`ui: ${what}: ${long.length} tasks over 50 ms${long.length ? `, ${Math.max(...long)} ms the longest` : ""}`);
}

const world = await open();
try {
  await world.banger("run", "-d", "--name", "busy", "debian-bookworm", "--", "sleep", "infinity");
  const page = await world.visit("/?q=nothing");
  await page.getByRole("heading", { name: "Machines" }).waitFor();
  const seen = await crowd(page);
  await page.addInitScript(() => {
    globalThis.long = [];
    const tell = (list) => globalThis.long.push(...list.getEntries().map((e) => e.duration));
    new PerformanceObserver(tell).observe({ type: "longtask", buffered: true });
  });
  for (let visit = 1; visit <= visits; visit++) {
    seen.rounds = 0;
    await page.goto(new URL("/?sort=-cpu", page.url()).href);
    await page.locator("svg.cpu path[d*=L]").first().waitFor({ state: "attached" });
    await until(() => seen.rounds > 4, "no rounds come");
    await figure(page, `visit ${visit}`);
  }
  seen.begin();
  const begun = Date.now();
  await until(() => seen.changes > 20 * rate, "no changes come");
  await page.getByText("paused").first().waitFor();
  await figure(page, `${Math.round(seen.changes / ((Date.now() - begun) / 1000))} changes a second, ${seen.changes} of them`);
  await page.goto(new URL("/vms/busy/network", page.url()).href);
  await until(() => seen.decisions > 20 * rate, "no connections come");
  await page.getByText("192.0.2.1").first().waitFor();
  await figure(page, `${seen.decisions} connections of one machine, ${rate} a second`);
  seen.end();
} finally {
  await world.close();
}
