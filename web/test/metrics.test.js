// What machines use: curves in the list, and charts of one machine.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { clean, open, patience, picture, violations } from "./world.js";

let world;
before(async () => {
  world = await open();
  await world.banger("run", "-d", "--name", "sleeping", "debian-bookworm", "--", "sleep", "infinity");
  await world.banger("run", "-d", "--name", "busy", "debian-bookworm", "--", "sh", "-c", "while :; do :; done");
});
after(() => world.close());

/** Counts the streams of the history that a page has open. */
function streams(page) {
  const open = new Set();
  page.on("websocket", (socket) => {
    if (new URL(socket.url()).pathname !== "/v1/metrics") return;
    open.add(socket);
    socket.on("close", () => open.delete(socket));
  });
  page.on("request", (r) => r.isNavigationRequest() && open.clear()); // the page before has none any more
  return open;
}

/** Returns the newest point of the curve of a machine's CPU, from 0 to 1, or -1 without a curve. */
const present = (page, name) =>
  page.getByRole("row", { name }).locator("svg.cpu path").evaluate((path) => {
    const y = [...(path.getAttribute("d") ?? "").matchAll(/[ML][\d.]+ ([\d.]+)/g)].at(-1);
    return y ? 1 - Number(y[1]) / 20 : -1;
  });

/** Waits until something is true. */
async function until(is, what) {
  const end = Date.now() + patience;
  while (!(await is())) {
    assert.ok(Date.now() < end, what);
    await new Promise((done) => setTimeout(done, 500));
  }
}

test("a busy machine has a higher curve than a sleeping one, and is sorted before it", async () => {
  const page = await world.visit("/?sort=-cpu");
  const open = streams(page);
  await page.getByRole("grid", { name: "Machines" }).waitFor();
  // Other programs of this host may leave little of a CPU to the busy one.
  const differ = async () => {
    const [busy, sleeping] = [await present(page, "busy"), await present(page, "sleeping")];
    return sleeping >= 0 && busy > 0.05 && busy > 3 * sleeping;
  };
  await until(differ, "the curves are alike");
  const names = await page.getByRole("row").locator("a.open").allInnerTexts();
  assert.deepEqual(names, ["busy", "sleeping"]);
  await page.getByRole("row", { name: "busy" }).getByText(/^CPU \d+ %$/).waitFor();
  await page.getByRole("row", { name: "sleeping" }).getByText(/^Memory [\d.]+ MiB$/).waitFor();
  assert.equal(open.size <= 1, true, "the list reads one stream");
  assert.deepEqual(await violations(page), []);
  await picture(page, "metrics-table");
  await page.getByRole("button", { name: "Cards" }).click();
  await page.getByRole("listitem").filter({ hasText: "busy" }).locator("svg.cpu path[d*=L]").waitFor({ state: "attached" }); // a level one has no height
  assert.deepEqual(await violations(page), []);
  await picture(page, "metrics-cards");
  clean(page);
  await page.context().close();
});

test("a machine has charts with a table for each, and a reload shows what was before", async () => {
  const page = await world.visit("/vms/busy/usage");
  const open = streams(page);
  const table = page.getByRole("table", { name: "CPU: now, least and most" });
  await table.getByRole("row", { name: "Share of its CPUs" }).getByText(/^\d\d+ %$/).first().waitFor();
  await page.reload();
  await table.getByRole("row", { name: "Share of its CPUs" }).getByText(/^\d\d+ %$/).first().waitFor();
  assert.equal(await page.locator(".chart canvas").count(), 4);
  const painted = await page.locator(".chart canvas").first().evaluate((c) =>
    c.getContext("2d").getImageData(0, 0, c.width, c.height).data.some((v) => v > 0));
  assert.ok(painted, "the chart is empty");
  const box = await page.locator(".chart").first().boundingBox();
  await page.mouse.move(box.x + box.width - 12, box.y + 60);
  await table.getByRole("columnheader", { name: /^\d+:\d\d/ }).waitFor(); // the values under the mouse
  await page.mouse.move(0, 0);
  await table.getByRole("columnheader", { name: "Now" }).waitFor();
  assert.deepEqual(await violations(page), []);
  await picture(page, "metrics-usage");
  await page.getByRole("button", { name: "24 hours" }).click();
  await page.waitForURL(/span=day/);
  await page.getByText("The first value comes after five minutes").or(page.getByText("Most").first()).first().waitFor();
  await until(() => open.size === 1, "the page of the machine reads one stream");
  await page.getByRole("link", { name: "Files" }).click();
  await until(() => open.size === 0, "the stream is read on a page without charts");
  clean(page);
  await page.context().close();
});

test("a stopped machine has a gap, and the history begins anew with the daemon", async () => {
  const page = await world.visit("/vms/sleeping/usage");
  const row = page.getByRole("row", { name: "Share of its CPUs" });
  await row.getByText("%").first().waitFor();
  await world.banger("stop", "-t", "1", "sleeping");
  await until(async () => (await row.getByRole("cell").first().innerText()) === "-", "the stopped machine uses CPU");
  await world.banger("daemon", "stop");
  await world.banger("ps");
  await page.getByText("Nothing is known yet.").waitFor();
  await page.context().close();
});
