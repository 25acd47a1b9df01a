// Images: pulled, looked at, named, pruned and removed, as a person clicks it.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { registry } from "./registry.js";
import { clean, open, picture, violations } from "./world.js";

const hostile = `<img src=x onerror="document.title='owned'">`;

let world;
let remote;
before(async () => {
  world = await open();
  remote = await registry();
  await world.banger("create", "--name", "box", "debian-bookworm");
});
after(async () => {
  remote?.close();
  await world.close();
});

/** Asks for an image by the dialog. */
async function pull(page, reference) {
  await page.getByRole("button", { name: "Pull an image" }).click();
  const dialog = page.getByRole("dialog", { name: "Pull an image" });
  await dialog.getByLabel("Image").fill(reference);
  await page.keyboard.press("Enter");
  await dialog.waitFor({ state: "hidden" });
}

const row = (page, name) => page.getByRole("row").filter({ has: page.getByRole("link", { name, exact: true }) });

test("images are pulled side by side, with progress, and one of them is cancelled", async () => {
  const one = (await remote.add("one", "v1", { size: 3 << 20 })).hold();
  const two = (await remote.add("two", "v1", { size: 3 << 20 })).hold();
  const page = await world.visit("/images");
  await row(page, "debian-bookworm").getByRole("link", { name: "box" }).waitFor();
  await pull(page, `${remote.host}/one:v1`);
  await pull(page, `${remote.host}/two:v1`);
  const pulls = page.getByRole("list", { name: "Fetched now" });
  await pulls.getByText(/\d \w+ \/ 3 MiB/).nth(1).waitFor();
  assert.equal(await pulls.getByRole("progressbar").count(), 2);
  await picture(page, "images");
  await page.getByRole("link", { name: "Kernels" }).click(); // it goes on, whatever is shown
  await page.getByRole("row").filter({ hasText: "(default)" }).waitFor();
  await page.getByRole("link", { name: "Images" }).last().click();
  await page.getByRole("button", { name: `Cancel: ${remote.host}/two:v1` }).click();
  await pulls.getByText("/two:v1").waitFor({ state: "hidden" });
  one();
  await row(page, `${remote.host}/one:v1`).waitFor();
  assert.deepEqual((await world.banger("image", "ls", "--format", "{{.Repository}}")).includes("/two"), false);
  two();
  await row(page, `${remote.host}/one:v1`).getByRole("button", { name: "New machine of" }).click();
  assert.equal(await page.getByRole("dialog").getByLabel("Image").first().inputValue(), `${remote.host}/one:v1`);
  await page.keyboard.press("Escape");
  await row(page, `${remote.host}/one:v1`).getByRole("button", { name: "Tag" }).click();
  await page.getByRole("dialog").getByLabel("Name").fill("mine:v7");
  await page.keyboard.press("Enter");
  await page.getByRole("link", { name: "mine:v7" }).waitFor();
  clean(page);
  assert.deepEqual(await violations(page), []);
  await pull(page, `${remote.host}/nothing:v1`);
  await pulls.getByRole("alert").waitFor();
  await pulls.getByRole("button", { name: "Try again" }).click();
  await pulls.getByRole("alert").waitFor();
  await page.context().close();
});

test("what an image says of itself is text", async () => {
  await remote.add("odd", "v1", {
    author: hostile,
    config: {
      Labels: { [hostile]: hostile, ["k".repeat(2000)]: "x".repeat(3000), [`${"k".repeat(2000)}2`]: "y" },
      Cmd: [hostile],
      Env: [`A=${hostile}`],
      User: hostile,
      WorkingDir: `/${hostile}`,
    },
    history: [{ created_by: hostile, comment: `${hostile}\u202e`, empty_layer: true }],
  });
  await world.banger("image", "pull", `${remote.host}/odd:v1`);
  const reference = `${remote.host}/odd:v1`;
  const page = await world.visit(`/images/${encodeURIComponent(reference)}`);
  await page.getByRole("heading", { name: reference }).waitFor();
  await page.getByRole("region", { name: /^History/ }).getByText(hostile).first().waitFor();
  await page.getByText(`A=${hostile}`).waitFor();
  await page.getByRole("region", { name: /^Layers/ }).getByText("no other image").waitFor();
  assert.equal(await page.locator("img").count(), 0);
  assert.equal(await page.title(), `${reference} · banger`);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false);
  clean(page);
  assert.deepEqual(await violations(page), []);
  await picture(page, "image");
  await page.context().close();
});

test("an image in use stays, and a prune says first what it would remove", async () => {
  const page = await world.visit("/images");
  await row(page, "debian-bookworm").getByRole("button", { name: "Remove" }).click();
  const ask = page.getByRole("dialog", { name: "Remove debian-bookworm?" });
  await ask.getByRole("button", { name: "Remove" }).click();
  await ask.getByRole("alert").getByText("VM box").waitFor();
  await ask.getByRole("button", { name: "Cancel" }).click();

  await page.getByRole("button", { name: "Prune…" }).click();
  const prune = page.getByRole("dialog", { name: "Prune images" });
  await prune.getByText("would remove 0 images").waitFor();
  await prune.getByLabel("Also images that have a name").check();
  await prune.getByRole("list", { name: "Would be removed" }).getByText("debian-bookworm-dev").waitFor();
  await prune.getByText("debian-bookworm stays: it is needed by VM box").waitFor();
  assert.match(await world.banger("image", "ls"), /debian-bookworm-dev/, "a dry run removes nothing");
  assert.deepEqual(await violations(page), []);
  await picture(page, "prune");
  await prune.getByRole("button", { name: "Remove" }).click();
  await page.getByText(/^Removed \d+ images? and/).waitFor();
  await row(page, "debian-bookworm-dev").waitFor({ state: "hidden" });
  assert.equal((await world.banger("image", "ls", "-q")).split("\n").length, 1);
  clean(page);
  await page.context().close();
});

test("templates and kernels are shown", async () => {
  const page = await world.visit("/images/templates");
  await page.getByRole("heading", { name: "Templates" }).waitFor();
  await page.getByText(/There is no template|\d/).first().waitFor();
  await page.getByRole("button", { name: /Prune/ }).click();
  const prune = page.getByRole("dialog", { name: "Prune templates" });
  await prune.getByText(/It removes 0 templates/).waitFor();
  await prune.getByLabel("Every template").check();
  const all = (await world.banger("warm", "ls", "-q")).split("\n").filter(Boolean);
  await prune.getByText(`It removes ${all.length} templates`).waitFor();
  await prune.getByRole("button", { name: "Cancel" }).click();
  assert.deepEqual(await violations(page), []);
  await page.getByRole("link", { name: "Kernels" }).click();
  const name = await world.banger("kernel", "ls", "-q");
  await page.getByRole("rowheader", { name }).waitFor();
  await page.getByRole("button", { name: `Remove ${name}` }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
  await page.getByRole("alert").waitFor(); // box needs it
  await page.keyboard.press("Escape");
  clean(page);
  assert.deepEqual(await violations(page), []);
  await picture(page, "kernels");
  await page.context().close();
});
