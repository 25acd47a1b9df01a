// The network of a machine: what it was refused, and what is changed about it.

import assert from "node:assert/strict";
import { createServer } from "node:net";
import { after, before, test } from "node:test";
import { clean, open, picture, violations } from "./world.js";

let world;
let server;
before(async () => {
  world = await open();
  server = createServer((c) => c.end("hello from the host"));
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  await world.banger("run", "-d", "--name", "box", "--net-policy", "deny", "--net-allow", "host tcp:1", "debian-bookworm", "--", "sleep", "infinity");
});
after(async () => {
  await world.close();
  server.close();
});

/** What the guest gets of the host's server. */
const get = (port) =>
  world.banger("exec", "box", "timeout", "20", "bash", "-c", `cat < /dev/tcp/host.banger.internal/${port} || echo refused`);

test("what is refused is seen, allowed, and then works", async () => {
  const { port } = server.address();
  const page = await world.visit("/vms/box/network");
  await page.getByText("Nothing was refused").waitFor();
  assert.match(await get(port), /refused/);
  const log = page.getByRole("log", { name: "Refused" });
  await log.getByRole("button", { name: `Allow: allow host tcp:${port}` }).first().click();
  await log.getByText("allowed now").first().waitFor();
  assert.equal(await get(port), "hello from the host");
  assert.match(await world.banger("policy", "show", "box"), new RegExp(`allow host tcp:${port}`));
  assert.deepEqual(await violations(page), []);
  await picture(page, "network");
  clean(page);
  await page.context().close();
});

test("a policy is edited with a preview, and a bad one changes nothing", async () => {
  const page = await world.visit("/vms/box/network");
  const rules = page.getByLabel("Rules");
  await rules.fill("allow *.example.com tcp:443\nallow nonsense tcp:x\ndefault deny");
  await page.getByText("+ allow *.example.com tcp:443").waitFor();
  const before = await world.banger("policy", "show", "box");
  await page.getByRole("button", { name: "Put in force" }).click();
  await page.getByRole("alert").waitFor();
  assert.equal(await world.banger("policy", "show", "box"), before);
  await rules.fill("allow *.example.com tcp:443\ndefault deny");
  await page.getByRole("button", { name: "Put in force" }).click();
  await page.getByRole("button", { name: "Put in force" }).and(page.locator(":disabled")).waitFor();
  assert.match(await world.banger("policy", "show", "box"), /\*\.example\.com tcp:443/);
  clean(page);
  await page.context().close();
});

test("a forward comes and goes while the machine runs", async () => {
  const page = await world.visit("/vms/box/network");
  await page.getByLabel("New forward").fill("18081:80");
  await page.getByRole("button", { name: "Add" }).click();
  await page.getByRole("button", { name: /End .*18081/ }).waitFor();
  assert.match(await world.banger("port", "ls", "box"), /18081/);
  await page.getByRole("button", { name: /End .*18081/ }).click();
  await page.getByText("No port of the host leads to it.").waitFor();
  assert.doesNotMatch(await world.banger("port", "ls", "box"), /18081/);
  clean(page);
  await page.context().close();
});
