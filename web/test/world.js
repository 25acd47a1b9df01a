// What the stories of the web UI share: a daemon with real VMs, and a real browser. A story speaks of what a user sees:
// roles, names and texts.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { chromium } from "playwright-core";

const run = promisify(execFile);
const program = resolve(process.env.BANGER ?? "../bin/banger");
const axe = await readFile(new URL("../node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
/** Where screenshots go, if anywhere. */
const pictures = process.env.BANGER_UI_PICTURES;

/** How long a story waits for something. Guests may be emulated. */
export const patience = 60_000;

/** Starts a world: a browser, and a banger whose state directory is a copy of the one that has images. */
export async function open() {
  const dir = await mkdtemp(join(tmpdir(), "ui-"));
  const prepared = process.env.BANGER_E2E_STATE;
  if (!prepared) throw new Error("BANGER_E2E_STATE must name a state directory with images");
  await run("cp", ["-al", prepared, join(dir, "s")]);
  await run("find", [join(dir, "s"), "-maxdepth", "1", "(", "-name", "banger.db*", "-o", "-name", "daemon.*", "-o", "-name", "dns.port", ")", "-delete"]);
  const env = {
    ...process.env,
    BANGER_STATE_DIR: join(dir, "s"),
    BANGER_RUN_DIR: join(dir, "r"),
    XDG_CONFIG_HOME: join(dir, "c"),
    BANGER_TEMPLATES: "use",
    BANGER_LOG_LEVEL: "info",
  };
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"],
  });
  const world = {
    dir,
    env,
    browser,
    /** Runs banger and returns what it has printed. */
    async banger(...args) {
      const { stdout } = await run(program, args, { env, maxBuffer: 64 << 20 });
      return stdout.trim();
    },
    /** Opens the UI in a browser of its own, which has never been here, at a path. */
    async visit(path = "/", options = {}) {
      const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
      context.setDefaultTimeout(patience);
      const page = await context.newPage();
      page.wrong = []; // what the browser says was wrong
      // Refusals of the daemon are answers, which the page shows.
      const refusal = /^Failed to load resource: the server responded with a status of 4/;
      page.on("console", (m) => m.type() === "error" && !refusal.test(m.text()) && page.wrong.push(m.text()));
      page.on("pageerror", (e) => page.wrong.push(String(e)));
      page.foreign = []; // requests to anywhere else
      page.on("request", (r) => {
        const to = new URL(r.url());
        if (!["data:", "blob:"].includes(to.protocol) && to.host !== new URL(world.address).host) page.foreign.push(r.url());
      });
      const address = new URL(await world.banger("ui", "--print"));
      world.address = address.origin;
      address.pathname = path.split("?")[0];
      address.search = path.split("?")[1] ?? "";
      await page.goto(address.href);
      return page;
    },
    async close() {
      await browser.close();
      await world.banger("ui", "--close").catch(() => {});
      const vms = (await world.banger("ps", "-aq")).split("\n").filter(Boolean);
      if (vms.length) await world.banger("rm", "-f", ...vms);
      await world.banger("daemon", "stop").catch(() => {});
      await rm(dir, { recursive: true, force: true });
    },
  };
  return world;
}

/** Returns what axe-core has against a page, as sentences. */
export async function violations(page) {
  // The policy of the page allows no script but its own, so the tool comes by the browser's debugger.
  await page.evaluate(axe);
  const result = await page.evaluate(() => axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"] }));
  return result.violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => n.target.join(" ")).join("; ")}`);
}

/** Checks that the browser found nothing wrong, and that the page asked nobody else. */
export function clean(...pages) {
  for (const page of pages) {
    assert.deepEqual([...new Set(page.wrong)].slice(0, 3), [], "the browser says what was wrong");
    assert.deepEqual(page.foreign, [], "the page asked others");
  }
}

/** Keeps pictures of a page: desktop and phone, dark and light. */
export async function picture(page, name) {
  if (!pictures) return;
  await mkdir(pictures, { recursive: true });
  for (const [size, viewport] of Object.entries({ desktop: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } })) {
    await page.setViewportSize(viewport);
    for (const colorScheme of ["dark", "light"]) {
      await page.emulateMedia({ colorScheme });
      await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
      await page.screenshot({ path: join(pictures, `${name}-${size}-${colorScheme}.png`) });
    }
  }
  await page.setViewportSize({ width: 1280, height: 800 });
  await page.emulateMedia({ colorScheme: null });
}

/** Returns what a terminal shows, as text. */
export const screen = (page) => page.locator(".xterm-rows").innerText();

/** Waits until a terminal shows a text. */
export async function shows(page, text) {
  await page.waitForFunction((t) => document.querySelector(".xterm-rows")?.innerText.includes(t), text, { timeout: patience });
}
