// Files: a directory of a guest as a person browses it, changes a file and copies both ways.

import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { clean, open, picture, violations } from "./world.js";

const hostile = `<img src=x onerror=alert(1)>`;
const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

let world;
before(async () => {
  world = await open();
  await world.banger("run", "-d", "--name", "box", "debian-bookworm", "--", "sleep", "infinity");
  const made = [
    "mkdir -p /w/deep && cd /w",
    "printf '#!/bin/sh\\necho old\\n' > run && chmod 750 run && chown 1000:1001 run",
    `echo ${png} | base64 -d > dot.png`,
    "head -c 40000 /dev/zero > zeros; printf 'caf\\351' > latin; ln -s run way",
    `touch "$(printf 'odd \\377 \\045')" '${hostile}'; printf deep > deep/file`,
  ];
  await world.banger("exec", "box", "sh", "-c", made.join("; "));
});
after(() => world.close());

test("a file is found, changed and saved, and keeps its owner and rights", async () => {
  const page = await world.visit("/vms/box/files");
  await page.getByRole("link", { name: "w/", exact: true }).click();
  await page.getByRole("button", { name: "way" }).click();
  const editor = page.locator(".cm-content");
  await editor.getByText("echo old").click();
  await page.keyboard.press("Control+End");
  await page.keyboard.type("echo new; # n ? /\n"); // letters are no commands here
  await page.keyboard.press("Control+s");
  await page.getByRole("button", { name: "Save" }).and(page.locator(":disabled")).waitFor();
  assert.equal(await world.banger("exec", "box", "sh", "-c", "/w/run; stat -c %u:%g,%a /w/run"), "old\nnew\n1000:1001,750");
  await world.banger("exec", "box", "sh", "-c", "echo echo other >> /w/run");
  await editor.getByText("echo new").click();
  await page.keyboard.press("Control+End");
  await page.keyboard.type("echo mine\n");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("has changed in the machine since it was opened").waitFor();
  assert.match(await world.banger("exec", "box", "cat", "/w/run"), /echo other/);
  clean(page);
  assert.deepEqual(await violations(page), []);
  await picture(page, "files");
  await page.context().close();
});

test("pictures and bytes are shown, and names are text", async () => {
  const page = await world.visit("/vms/box/files?dir=/w");
  await page.getByRole("link", { name: "dot.png" }).click();
  await page.waitForFunction(() => document.querySelector("img")?.naturalWidth === 1);
  await page.getByRole("link", { name: "zeros" }).click();
  await page.getByText("00000010  00 00").waitFor();
  await page.getByRole("link", { name: "latin" }).click();
  await page.getByText("63 61 66 e9").waitFor();
  await page.getByRole("link", { name: "odd" }).click();
  await page.getByRole("heading", { name: "odd � %" }).waitFor();
  await page.getByRole("link", { name: hostile }).click();
  await page.getByRole("heading", { name: hostile }).waitFor();
  assert.equal(await page.locator("img").count(), 0);
  clean(page);
  await page.context().close();
});

test("files and folders are copied both ways", async () => {
  const from = join(world.dir, "folder");
  await mkdir(join(from, "inner"), { recursive: true });
  const large = Buffer.alloc(3_000_001, "abc");
  const long = `${"x".repeat(120)}.txt`;
  await writeFile(join(from, "inner", long), "long");
  await writeFile(join(from, "large"), large);
  const page = await world.visit("/vms/box/files?dir=/w/deep");
  await page.getByRole("link", { name: "file", exact: true }).waitFor();
  await page.getByLabel("Upload files").setInputFiles([join(from, "large")]);
  await page.getByRole("link", { name: "large" }).waitFor();
  await page.getByLabel("Upload a folder").setInputFiles(from);
  await page.getByRole("link", { name: "folder/" }).waitFor();
  const seen = await world.banger("exec", "box", "sh", "-c", `cd /w/deep; cat folder/inner/${long}; wc -c < large; stat -c %U large`);
  assert.equal(seen, "long3000001\nroot");
  await page.getByRole("link", { name: "large" }).click();
  const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download", exact: true }).click()]);
  assert.ok((await readFile(await file.path())).equals(large));
  const [tar] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download as tar" }).click()]);
  assert.equal(tar.suggestedFilename(), "deep.tar");
  assert.ok((await readFile(await tar.path())).includes("deep/folder/inner"));
  // Dropped files come in another way than chosen ones.
  const dropped = await page.evaluateHandle(() => {
    const data = new DataTransfer();
    data.items.add(new File(["dropped"], "dropped.txt"));
    return data;
  });
  await page.getByRole("region", { name: /dropped here/ }).dispatchEvent("drop", { dataTransfer: dropped });
  await page.getByRole("link", { name: "dropped.txt" }).waitFor();
  assert.equal(await world.banger("exec", "box", "cat", "/w/deep/dropped.txt"), "dropped");
  clean(page);
  await page.context().close();
});
