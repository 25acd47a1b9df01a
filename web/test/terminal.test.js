// Terminals: sessions that stay when the page goes.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { clean, open, picture, shows, violations } from "./world.js";

let world;
before(async () => {
  world = await open();
  await world.banger("run", "-d", "--name", "box", "debian-bookworm", "--", "sleep", "infinity");
});
after(() => world.close());

/** Opens a new terminal of the machine, and returns when it has a prompt. */
async function terminal(page) {
  const tabs = page.getByRole("navigation", { name: "Terminals" }).getByRole("link");
  await page.getByText(/is open|End it/).first().waitFor();
  const name = (await tabs.count()) ? `shell-${(await tabs.count()) + 1}` : "shell";
  await page.getByRole("button", { name: "New terminal" }).click();
  await page.getByRole("group", { name: `Terminal of ${name}.` }).waitFor();
  await shows(page, "#");
}

test("a reload in the middle of output shows the same screen, and the output goes on", async () => {
  const page = await world.visit("/vms/box/terminal");
  await terminal(page);
  await page.keyboard.type("for i in $(seq 1 200); do echo line $i; sleep 0.05; done; echo all of $((2 + 1)) words\n");
  await shows(page, "line 20\n");
  await page.reload();
  await shows(page, "line 2");
  await shows(page, "all of 3 words");
  await page.keyboard.type("echo still $((40 + 2))\n");
  await shows(page, "still 42");
  clean(page);
  assert.deepEqual(await violations(page), []);
  await picture(page, "terminal");
  await page.context().close();
});

test("two browsers are in one terminal, and one that only looks types nothing", async () => {
  const one = await world.visit("/vms/box/terminal");
  await terminal(one);
  const session = new URL(one.url()).searchParams.get("session");
  await one.keyboard.type("echo first $((1 + 1))\n");
  await shows(one, "first 2");
  const two = await world.visit(`/vms/box/terminal?session=${session}`, { viewport: { width: 390, height: 844 } });
  await shows(two, "first 2");
  await two.locator(".xterm-helper-textarea").focus();
  await two.keyboard.type("echo second $((2 + 2))\n");
  await shows(one, "second 4");
  await two.getByLabel("Only look").check();
  await shows(two, "second 4");
  await two.locator(".xterm-helper-textarea").focus();
  await two.keyboard.type("echo third $((3 + 3))\n");
  await one.locator(".xterm-helper-textarea").focus();
  await one.keyboard.type("echo fourth $((4 + 4))\n");
  await shows(two, "fourth 8");
  assert.ok(!(await one.locator(".xterm-rows").innerText()).includes("third"));
  await one.getByRole("button", { name: "End it" }).click();
  await two.getByText(`There is no terminal ${session}`).waitFor();
  clean(one, two);
  await Promise.all([one.context().close(), two.context().close()]);
});

test("a hostile program asks before it copies or opens anything", async () => {
  const page = await world.visit("/vms/box/terminal");
  await terminal(page);
  await page.keyboard.type("printf '\\033]52;c;ZXZpbA==\\007'\n");
  const copy = page.getByRole("dialog", { name: "Copy a text of the guest?" });
  await copy.getByText("evil").waitFor();
  await copy.getByRole("button", { name: "Cancel" }).click();
  await page.locator(".xterm-helper-textarea").focus();
  await page.keyboard.type("clear; printf '\\033]0;%0300d<img src=x>\\007' 1; echo go to http://127.0.0.1:1/tra''p\n");
  await shows(page, "go to http://127.0.0.1:1/trap");
  assert.ok((await page.title()).length < 100);
  const link = page.locator(".xterm-rows").getByText("/trap").last();
  const box = await link.boundingBox();
  await page.mouse.move(box.x + 90, box.y + box.height / 2);
  await page.locator(".xterm-cursor-pointer").waitFor();
  await page.mouse.click(box.x + 90, box.y + box.height / 2);
  const ask = page.getByRole("dialog", { name: "Open a link of the guest?" });
  await ask.getByText("http://127.0.0.1:1/trap").waitFor();
  await ask.getByRole("button", { name: "Cancel" }).click();
  clean(page);
  await page.context().close();
});
