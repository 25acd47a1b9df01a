// What a terminal costs that a guest's program fills without a pause, for ten minutes or MINUTES: the memory of the page
// and of banger's processes, and the tasks that the page takes. make bench runs it. It prints figures, and asserts nothing.

import { readdir, readFile, readlink } from "node:fs/promises";
import { open, shows } from "../test/world.js";

const minutes = Number(process.env.MINUTES ?? 10);

/** Returns the memory of each of banger's processes of this world in MiB, by what they are. */
async function memory() {
  const sum = {};
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    const read = (name) => readFile(`/proc/${pid}/${name}`, "utf8").catch(() => "");
    const [command, environment, rollup] = [await read("cmdline"), await read("environ"), await read("smaps_rollup")];
    const kind = command.split("\0")[1];
    const program = await readlink(`/proc/${pid}/exe`).catch(() => "");
    const ours = environment.includes(`BANGER_STATE_DIR=${world.dir}/`) || command.includes(world.dir);
    if (!program.endsWith("/banger") || !ours) continue;
    sum[kind] = (sum[kind] ?? 0) + Number(/^Pss:\s+(\d+)/m.exec(rollup)?.[1] ?? 0) / 1024;
  }
  return sum;
}

const mib = (n) => `${n.toFixed(1)} MiB`;

const world = await open();
try {
  await world.banger("run", "-d", "--name", "box", "debian-bookworm", "--", "sleep", "infinity");
  const page = await world.visit("/vms/box/terminal");
  await page.addInitScript(() => {
    globalThis.long = [];
    const tell = (list) => globalThis.long.push(...list.getEntries().map((e) => e.duration));
    new PerformanceObserver(tell).observe({ type: "longtask", buffered: true });
  });
  await page.reload();
  await page.getByRole("button", { name: "New terminal" }).click();
  await page.getByRole("group", { name: /^Terminal of/ }).waitFor();
  await shows(page, "#");
  await page.keyboard.type("seq inf | sed 's/$/ the quick brown fox jumps over the lazy dog/'\n");
  await shows(page, "lazy dog");
  const browser = await page.context().newCDPSession(page);
  const lines = async () => {
    const shown = (await page.locator(".xterm-rows").innerText()).match(/\d+(?= the quick)/g) ?? [];
    return Math.max(0, ...shown.map(Number));
  };
  for (let minute = 0; minute <= minutes; minute++) {
    if (minute) await new Promise((done) => setTimeout(done, 60_000));
    await browser.send("HeapProfiler.collectGarbage");
    const { usedSize } = await browser.send("Runtime.getHeapUsage");
    const { nodes } = await browser.send("Memory.getDOMCounters");
    const long = await page.evaluate(() => globalThis.long.splice(0));
    const processes = Object.entries(await memory()).map(([kind, n]) => `${kind} ${mib(n)}`);
    console.log(
      `ui: terminal, minute ${minute}: ${await lines()} lines; page ${mib(usedSize / (1 << 20))}, ${nodes} nodes; ` +
        `${processes.join(", ")}; ${long.length} tasks over 50 ms${long.length ? `, ${Math.max(...long)} ms the longest` : ""}`,
    );
  }
} finally {
  await world.close();
}
