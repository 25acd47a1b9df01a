// The network of a machine: what it was refused, and what is changed about it.

import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { clean, open, picture, violations } from "./world.js";

let world;
let server;
let other;
let third;
const held = []; // connections of the server
before(async () => {
  world = await open();
  server = createServer((c) => (held.push(c), c.write("hello from the host"))); // a story ends it
  other = createServer((c) => c.on("error", () => {}).end("hello from the host"));
  third = createServer((c) => c.on("error", () => {}).end("hello from the host"));
  for (const s of [server, other, third]) await new Promise((done) => s.listen(0, "127.0.0.1", done));
  await world.banger("run", "-d", "--name", "box", "--net-policy", "deny", "--net-allow", "host tcp:1", "debian-bookworm", "--", "sleep", "infinity");
});
after(async () => {
  await world.close();
  server.close();
  other.close();
  third.close();
});

/** What the guest gets of a server of the host. */
const get = (port) =>
  world.banger("exec", "box", "timeout", "60", "bash", "-c", `cat < /dev/tcp/host.banger.internal/${port} || echo refused`);

test("what is refused is seen, allowed once, and then works; what is allowed is seen too", async () => {
  const { port } = server.address();
  const page = await world.visit("/vms/box/network");
  await page.getByText("Nothing was reached or refused").waitFor();
  assert.match(await get(port), /refused/);
  const log = page.getByRole("log", { name: "Connections" });
  const refused = log.getByRole("listitem").filter({ hasText: `:${port}/tcp` }).filter({ hasText: "refused" });
  await refused.first().getByText("bash", { exact: true }).waitFor();
  await refused.first().getByRole("button", { name: `Once: allow host tcp:${port}, for 5 minutes` }).click();
  await log.getByText("allowed until").first().waitFor();
  const got = get(port);
  const allowed = log.getByRole("listitem").filter({ hasText: `:${port}/tcp` }).filter({ hasText: "allowed" }).filter({ hasText: `once: allow host tcp:${port}` });
  await allowed.first().getByText(/^(bash|cat)$/).waitFor(); // both have the connection
  held.forEach((c) => c.end());
  assert.equal(await got, "hello from the host");
  assert.doesNotMatch(await world.banger("policy", "show", "box"), new RegExp(String(port)));
  await page.getByRole("button", { name: "Refused", exact: true }).click();
  await refused.first().waitFor();
  assert.equal(await allowed.count(), 0);
  assert.match(page.url(), /show=refused/);
  assert.deepEqual(await violations(page), []);
  await picture(page, "network-refused");
  clean(page);
  await page.context().close();
});

test("what is refused is allowed for the machine", async () => {
  const { port } = other.address();
  const page = await world.visit("/vms/box/network");
  assert.match(await get(port), /refused/);
  const log = page.getByRole("log", { name: "Connections" });
  await log.getByRole("button", { name: `For this machine: allow host tcp:${port}` }).first().click();
  await log.getByText("allowed now").first().waitFor();
  assert.equal(await get(port), "hello from the host");
  assert.match(await world.banger("policy", "show", "box"), new RegExp(`allow host tcp:${port}`));
  assert.deepEqual(await violations(page), []);
  await picture(page, "network");
  clean(page);
  await page.context().close();
});

test("what is refused is allowed for the project, in its file", async () => {
  const project = join(world.dir, "project");
  await mkdir(project);
  await writeFile(join(project, "README"), "a project\n");
  await world.banger("workspace", "prepare", "box", project);
  const { port } = third.address();
  const page = await world.visit("/vms/box/network");
  assert.match(await get(port), /refused/);
  const log = page.getByRole("log", { name: "Connections" });
  await log.getByRole("button", { name: `For this project: allow host tcp:${port}` }).first().click();
  const dialog = page.getByRole("dialog", { name: "Allow for this project" });
  await dialog.getByText(`+    "host tcp:${port}",`).waitFor();
  assert.deepEqual(await violations(page), []);
  await picture(page, "network-project");
  await dialog.getByRole("button", { name: "Allow", exact: true }).click();
  await dialog.waitFor({ state: "detached" });
  assert.equal(await get(port), "hello from the host");
  assert.match(await readFile(join(project, "banger.toml"), "utf8"), new RegExp(`"host tcp:${port}"`));
  assert.match(await world.banger("config", "show", project), new RegExp(`policy.allow +host tcp:${port}`)); // it is obeyed
  clean(page);
  await page.context().close();
});

test("a busy machine shows its newest connections, a page of them", async () => {
  const { port } = other.address();
  const page = await world.visit("/vms/box/network");
  const log = page.getByRole("log", { name: "Connections" });
  await log.waitFor();
  // Each datagram is a flow of its own: another port of the host.
  await world.banger("policy", "allow", "box", "host", "udp", "--for", "1m");
  await world.banger("exec", "box", "bash", "-c", "for p in {20000..23000}; do echo x >/dev/udp/10.0.2.2/$p; done 2>/dev/null; true");
  await world.banger("exec", "box", "bash", "-c", `exec 3<>/dev/tcp/10.0.2.2/${port} && cat <&3`);
  await log.getByRole("listitem").filter({ hasText: `:${port}/tcp` }).filter({ hasText: "allowed" }).first().waitFor();
  assert.equal(await log.getByRole("listitem").count(), 100);
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
