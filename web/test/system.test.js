// The system: what the host can do, what happens, and who may use the UI.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { clean, open, picture, violations } from "./world.js";

let world;
before(async () => {
  world = await open();
  await world.banger("create", "--name", "box", "debian-bookworm");
});
after(() => world.close());

test("the host: versions, doctor and the disk", async () => {
  const page = await world.visit("/system");
  const [, version] = /version ([^,]+)/.exec(await world.banger("daemon", "status"));
  await page.getByText(version, { exact: true }).first().waitFor();
  const doctor = page.getByRole("region", { name: "What this host can do" });
  for (const name of ["kvm", "disk", "daemon", "kernel"]) {
    await doctor.getByRole("rowheader", { name, exact: true }).waitFor();
  }
  const disk = page.getByRole("region", { name: "Disk use", exact: true });
  const kinds = (await world.banger("system", "df", "--format", "{{.Type}}")).split("\n");
  assert.deepEqual(await disk.getByRole("rowheader").allInnerTexts(), kinds);
  await page.getByText("Each machine and each snapshot").click();
  await page.getByRole("rowheader", { name: "box" }).waitFor();
  clean(page);
  assert.deepEqual(await violations(page), []);
  await picture(page, "system");
  await page.context().close();
});

test("events and the log show what happens, as it happens", async () => {
  const page = await world.visit("/system/events");
  await page.getByText(/all machines are known/).waitFor();
  await world.banger("create", "--name", "second", "debian-bookworm");
  const events = page.getByRole("region", { name: "Events" });
  await events.getByRole("row").filter({ hasText: "second" }).getByText("is new").waitFor();
  await world.banger("rename", "second", "third");
  await events.getByText("was called second").waitFor();
  await page.getByRole("link", { name: "Log" }).click();
  const log = page.getByRole("region", { name: "Log" });
  await log.getByText("daemon is ready").waitFor();
  await world.banger("snapshot", "create", "third", "before");
  await log.getByText(/a snapshot was taken.*third/).waitFor();
  clean(page);
  assert.deepEqual(await violations(page), []);
  await picture(page, "log");
  await world.banger("rm", "third");
  await page.getByRole("link", { name: "Events" }).click();
  await events.getByText("is gone").waitFor();
  await page.getByLabel("Filter the events").fill("was called");
  assert.equal(await events.getByRole("rowheader").count(), 1);
  assert.deepEqual(await violations(page), []);
  await picture(page, "events");
  await page.context().close();
});

test("a browser is revoked, and sees it", async () => {
  const mine = await world.visit("/system/browsers");
  await mine.getByText("This browser.").waitFor();
  const other = await world.visit("/");
  await other.getByRole("link", { name: "box" }).first().waitFor();
  const id = await other.evaluate(() => sessionStorage.getItem("banger.session"));
  await mine.reload();
  assert.deepEqual(await violations(mine), []);
  await picture(mine, "browsers");
  await mine.getByRole("button", { name: id }).click();
  await mine.getByRole("dialog").getByRole("button", { name: "End it" }).click();
  await other.getByRole("heading", { name: "This browser has no session" }).waitFor();
  await mine.getByRole("button", { name: id }).waitFor({ state: "hidden" });
  await mine.getByText("This browser.").waitFor();
  clean(mine);
  await Promise.all([mine.context().close(), other.context().close()]);
});

test("isolation is explained, for this host", async () => {
  const page = await world.visit("/system/isolation");
  const usable = /kvm: +usable/.test(await world.banger("daemon", "status"));
  await page.getByText(usable ? "KVM is usable" : "KVM is not usable").waitFor();
  await page.getByRole("rowheader", { name: "A machine and this host, emulated (none)" }).waitFor();
  clean(page);
  assert.deepEqual(await violations(page), []);
  await picture(page, "isolation");
  await page.context().close();
});
