// Machines: a new one, what can be done with it, its snapshots and forks, and a daemon that is started again.

import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { clean, open, picture, violations } from "./world.js";

let world;
before(async () => (world = await open()));
after(() => world.close());

/** Waits until the page says what a machine does. */
const state = (page, text) => page.locator(".state").getByText(text).first().waitFor();

test("a machine is made as the user's file says, stopped, started, renamed and removed", async () => {
  const config = join(world.env.XDG_CONFIG_HOME, "banger", "config.toml");
  await mkdir(dirname(config), { recursive: true });
  await writeFile(config, 'memory = "384m"\ncolour = "red"\n', { mode: 0o600 });
  const page = await world.visit("/");
  await page.getByRole("heading", { name: "Machines" }).waitFor();
  await page.keyboard.press("n");
  const dialog = page.getByRole("dialog", { name: "New machine" });
  await dialog.getByText("config.toml:2").waitFor();
  await writeFile(config, 'memory = "384m"\n[policy]\nallow = ["192.0.2.1"]\n', { mode: 0o600 });
  await dialog.getByRole("button", { name: "Cancel" }).click();
  await page.keyboard.press("n");
  await dialog.getByText("Your config.toml says: memory, policy.").waitFor();
  await dialog.getByLabel("Image", { exact: true }).fill("debian-bookworm");
  await dialog.getByLabel("Name", { exact: true }).fill("Bad name");
  await dialog.getByLabel("Command", { exact: true }).fill("sleep infinity");
  await dialog.getByRole("button", { name: "Create and start" }).click();
  await dialog.getByText('"Bad name"').waitFor(); // the daemon's own sentence
  await dialog.getByLabel("Name", { exact: true }).fill("web");
  await dialog.getByRole("button", { name: "Create and start" }).click();
  await page.waitForURL("**/vms/web");
  await state(page, "running");
  await page.getByText("emulated (none)").or(page.getByText("kvm", { exact: true })).first().waitFor();
  const [{ spec }] = JSON.parse(await world.banger("inspect", "web"));
  assert.equal(spec.memory, 384 << 20);
  assert.deepEqual(spec.policy, { default: "deny", rules: [{ action: "allow", to: "192.0.2.1" }] });
  assert.deepEqual(await violations(page), []);
  await picture(page, "machine");
  await page.getByRole("button", { name: "Stop" }).click();
  await state(page, "stopped");
  await page.getByRole("button", { name: "Start", exact: true }).click();
  await state(page, "running");
  await page.getByRole("button", { name: "More" }).click();
  await page.getByRole("menuitem", { name: "Rename…" }).click();
  await page.getByRole("dialog").getByLabel("Name").fill("site");
  await page.getByRole("dialog").getByRole("button", { name: "Rename" }).click();
  await page.waitForURL("**/vms/site");
  assert.match(await world.banger("ps"), /site .*running/);
  await page.keyboard.press("Control+k");
  await page.getByRole("combobox").fill("remove");
  await page.getByRole("option", { name: /Remove/ }).first().waitFor();
  await page.keyboard.press("Enter");
  const remove = page.getByRole("dialog");
  await remove.getByLabel("Kill it if it runs").check();
  await remove.getByRole("button", { name: "Remove" }).click();
  await page.getByText("There is no machine yet.").waitFor();
  assert.equal(await world.banger("ps", "-aq"), "");
  clean(page);
  await page.context().close();
});

test("a fork goes on from a snapshot, and both are compared", async () => {
  await world.banger("run", "-d", "--name", "base", "debian-bookworm", "--", "sleep", "infinity");
  await world.banger("exec", "base", "sh", "-c", "echo before > /state");
  const page = await world.visit("/vms/base/snapshots");
  await page.getByRole("button", { name: /Take a snapshot/ }).first().click();
  await page.getByRole("dialog").getByLabel("Name").fill("good");
  await page.getByRole("dialog").getByRole("button", { name: "Take" }).click();
  await page.getByRole("button", { name: "Restore" }).first().waitFor();
  await world.banger("exec", "base", "sh", "-c", "echo after > /state");
  await page.getByRole("button", { name: "Fork" }).first().click();
  await page.getByRole("dialog").getByLabel("Name").fill("twin");
  await page.getByRole("dialog").getByRole("button", { name: "Fork" }).click();
  await page.getByRole("link", { name: "Machines" }).first().click();
  await page.getByRole("link", { name: "twin" }).first().waitFor();
  assert.equal(await world.banger("exec", "twin", "cat", "/state"), "before");
  await page.getByRole("link", { name: "twin" }).first().click();
  await page.getByRole("button", { name: "More" }).click();
  await page.getByRole("menuitem", { name: "Compare…" }).click();
  const compare = page.getByRole("dialog", { name: "Compare twin" });
  await compare.getByLabel("With").fill("base");
  await compare.getByRole("button", { name: "Compare", exact: true }).click();
  await compare.getByText("M /state").click();
  await compare.getByText("+before").waitFor();
  assert.deepEqual(await violations(page), []);
  await picture(page, "compare");
  clean(page);
  await page.context().close();
});

test("several machines are found and chosen by keyboard, and removed at once", async () => {
  for (const name of ["left", "right"]) await world.banger("create", "--name", name, "--label", "pair=yes", "debian-bookworm");
  const page = await world.visit("/");
  await page.getByRole("link", { name: "left" }).first().waitFor();
  await page.keyboard.press("/");
  await page.keyboard.type("pair=yes");
  await page.keyboard.press("Enter");
  await page.waitForURL("**/?q=pair%3Dyes");
  await page.keyboard.press("Control+a");
  await page.getByText("2 selected").waitFor();
  assert.deepEqual(await violations(page), []);
  await picture(page, "machines");
  await page.keyboard.press("d");
  const remove = page.getByRole("dialog");
  await remove.getByText("left").waitFor();
  await remove.getByRole("button", { name: "Remove" }).click();
  await page.getByText("0 of").waitFor();
  assert.doesNotMatch(await world.banger("ps", "-a"), /left|right/);
  clean(page);
  await page.context().close();
});

test("a daemon that ends is missed, and one that starts again is found", async () => {
  const page = await world.visit("/");
  await page.getByText("Connected").waitFor();
  await world.banger("daemon", "stop");
  await page.getByText("The daemon does not answer. Trying again.").waitFor();
  await world.banger("create", "--name", "later", "debian-bookworm"); // starts it
  await page.getByText("Connected").waitFor();
  await page.getByRole("link", { name: "later" }).first().waitFor();
  assert.deepEqual(page.foreign, []);
  await page.context().close();
});

test("eight tabs of one browser follow the machines at once", async () => {
  const first = await world.visit("/?q=state:running");
  const tabs = [first];
  while (tabs.length < 8) {
    const tab = await first.context().newPage();
    await tab.goto(await world.banger("ui", "--print"));
    await tab.getByRole("heading", { name: "Machines" }).waitFor();
    tabs.push(tab);
  }
  await world.banger("create", "--name", "seen", "debian-bookworm");
  for (const tab of tabs.slice(1)) await tab.getByRole("link", { name: "seen" }).waitFor();
  await world.banger("rm", "seen");
  clean(first);
  await first.context().close();
});

test("a used address gives no session", async () => {
  const page = await world.visit("/");
  await page.getByText("Connected").waitFor();
  const other = await page.context().newPage();
  await other.goto(page.url());
  await other.getByText("banger ui").first().waitFor();
  assert.equal(await other.getByText("Connected").count(), 0);
  await other.goto(`${new URL(page.url()).origin}/#token=${"0".repeat(64)}`);
  await other.getByText("this address has been used, or is older than a minute").waitFor();
  await page.context().close();
});
