// Workspaces: what a machine has made of a repository is looked at file by file, and then taken.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { clean, open, picture, violations } from "./world.js";

const hostile = `<img src=x onerror=alert(1)>`;

let world;
let repo;

/** Runs a script in the repository, as its user, and returns what it has printed. */
async function sh(script) {
  const { stdout } = await promisify(execFile)("sh", ["-ec", script], { cwd: repo, env: { ...process.env, ...world.git } });
  return stdout.trim();
}

before(async () => {
  world = await open();
  repo = join(world.dir, "repo");
  await mkdir(repo);
  world.git = { GIT_CONFIG_NOSYSTEM: "1", HOME: world.dir };
  Object.assign(world.env, world.git);
  await sh("git config --global user.name Ada; git config --global user.email ada@example.com; git init -q -b main");
  await sh("seq 40 >numbers.txt; echo old >gone; seq 30 >name; printf 'a\\0b' >bytes; ln -s name way; echo 'echo hello' >run.sh");
  await sh("git add .; git commit -qm first");
  await world.banger("run", "-d", "--name", "box", "debian-bookworm", "--", "sleep", "infinity");
  await world.banger("workspace", "prepare", "-q", "box", repo);
  await change();
});
after(() => world.close());

/** Changes files in the machine. */
const change = () =>
  world.banger(
    "exec",
    "box",
    "sh",
    "-ec",
    `cd /workspace; sed -i s/^20$/twenty/ numbers.txt; rm gone; mv name title; printf 'a\\0c' >bytes; chmod 755 run.sh
    ln -sf /etc/passwd way; echo text >'${hostile}'; printf odd >"$(printf 'odd \\377')"; mkdir -p .vscode
    echo '{"tasks": []}' >.vscode/tasks.json`,
  );

const list = (page) => page.getByRole("region", { name: "Changed files" });

/** Waits until the page has looked at the workspace. */
const looked = (page) => page.getByText(/In the machine .* On this host/).waitFor();

test("what has changed is seen file by file, and hostile names are text", async () => {
  const page = await world.visit("/vms/box/workspaces");
  await page.getByText("In the machine 9 files changed. On this host nothing changed.").waitFor();
  const names = await list(page).getByRole("link").allInnerTexts();
  assert.match(names[0], /tasks\.json/, "what is to be looked at comes first");
  assert.equal(await list(page).getByText("look at this").count(), 2);
  await list(page).getByRole("link", { name: "numbers.txt" }).click();
  await page.getByRole("textbox", { name: "Before of numbers.txt" }).getByText("20", { exact: true }).waitFor();
  await page.getByRole("textbox", { name: "After of numbers.txt" }).getByText("twenty").waitFor();
  await page.getByText(/unchanged lines/).first().waitFor();
  await page.getByRole("button", { name: "All lines" }).click();
  await page.getByText(/unchanged lines/).first().waitFor({ state: "hidden" });
  assert.deepEqual(await violations(page), []);
  await picture(page, "workspaces");
  await page.setViewportSize({ width: 390, height: 844 });
  await page.getByRole("textbox", { name: "Changes of numbers.txt" }).getByText("twenty").waitFor();
  assert.deepEqual(await violations(page), []);
  await page.setViewportSize({ width: 1280, height: 800 });
  for (const [link, words] of [
    ["way", "Now: a symlink to /etc/passwd."],
    ["bytes", "Before: 3 B that are no text."],
    ["run.sh", "It is a program now"],
    ["title", "It was called name."],
    ["tasks.json", "Look at this file before it reaches your tools: an editor runs tasks"],
  ]) {
    await list(page).getByRole("link", { name: link }).click();
    await page.getByText(words).waitFor();
  }
  await list(page).getByRole("link", { name: "odd �" }).click();
  await page.getByRole("textbox", { name: /After of odd/ }).getByText("odd").waitFor();
  await list(page).getByRole("link", { name: hostile }).click();
  await page.getByRole("heading", { name: hostile }).waitFor();
  assert.equal(await page.locator("img").count(), 0);
  await page.reload(); // the file is part of the address
  await page.getByRole("heading", { name: hostile }).waitFor();
  await page.getByLabel("Filter the files").fill("tasks");
  assert.equal(await list(page).getByRole("link").count(), 1);
  clean(page);
  await page.context().close();
});

test("what was seen is exported as a branch, and not what came later", async () => {
  const page = await world.visit("/vms/box/workspaces");
  await looked(page);
  await world.banger("exec", "box", "sh", "-c", "echo later >>/workspace/numbers.txt");
  await page.getByRole("button", { name: "Export as a branch" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("2 files may run programs of the machine here").waitFor();
  await dialog.getByLabel("Branch", { exact: true }).fill("main");
  await dialog.getByRole("button", { name: "Export" }).click();
  await dialog.getByText("the branch main exists").waitFor();
  assert.deepEqual(await violations(page), []);
  await dialog.getByLabel("Branch", { exact: true }).fill("from-box");
  await dialog.getByRole("button", { name: "Export" }).click();
  await page.getByText("The branch from-box has one commit of what was not committed.").waitFor();
  assert.match(await sh("git diff main from-box -- numbers.txt"), /-20\n\+twenty\n/);
  assert.doesNotMatch(await sh("git show from-box:numbers.txt"), /later/);
  assert.equal(await sh("git log -1 --format=%an from-box; git status --porcelain; git branch --show-current"), "Ada\nmain");
  clean(page);
  await page.context().close();
});

test("a pull needs that files are looked at, and a conflict changes nothing", async () => {
  const page = await world.visit("/vms/box/workspaces");
  await looked(page);
  await sh("sed -i s/^20$/XX/ numbers.txt");
  const pull = page.getByRole("button", { name: "Pull…" });
  const dialog = page.getByRole("dialog");
  await pull.click();
  await dialog.getByText("1 file conflicts, so nothing can be pulled").waitFor();
  await dialog.getByText("numbers.txt").waitFor();
  await dialog.getByRole("button", { name: "Cancel" }).click();
  await sh("git checkout -q numbers.txt");
  await pull.click();
  await dialog.getByText("Tools of this host may obey these files").waitFor();
  assert.ok(await dialog.getByRole("button", { name: "Pull" }).isDisabled());
  assert.deepEqual(await violations(page), []);
  await picture(page, "pull");
  await dialog.getByRole("link", { name: "tasks.json" }).click();
  await page.getByRole("textbox", { name: "After of .vscode/tasks.json" }).getByText("tasks").waitFor();
  await pull.click();
  await dialog.getByLabel("I have looked at these 2 files").check();
  await dialog.getByRole("button", { name: "Pull" }).click();
  await page.getByText(/files changed in the working tree of this host/).waitFor();
  assert.equal(await sh("sed -n 20p numbers.txt; cat .vscode/tasks.json; test ! -e gone -a ! -e name; stat -c %A run.sh"), 'twenty\n{"tasks": []}\n-rwxr-xr-x');
  clean(page);
  await page.context().close();
});

test("this host's changes come in, and a reset takes the machine's back", async () => {
  await sh("git reset -q --hard; git clean -fdq; echo mine >mine; git add mine");
  const page = await world.visit("/vms/box/workspaces");
  await looked(page);
  await page.getByRole("button", { name: "Bring in" }).click();
  await page.getByText("1 file came into the machine.").waitFor();
  assert.equal(await world.banger("exec", "box", "cat", "/workspace/mine"), "mine");
  await page.getByRole("button", { name: "Reset…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Reset" }).click();
  await page.getByText("The workspace is as it came from this host.").waitFor();
  await page.getByText("In the machine nothing changed. On this host nothing changed.").waitFor();
  assert.equal(await world.banger("exec", "box", "sh", "-c", "cd /workspace; sed -n 20p numbers.txt; cat mine; ls -a | grep -c vscode || true"), "20\nmine\n0");
  clean(page);
  await page.context().close();
});

test("a machine that does not run is asked about first, and what is not kept any more says so", async () => {
  await change();
  await world.banger("stop", "box");
  const page = await world.visit("/vms/box/workspaces");
  await page.getByText("which takes as long as a boot").waitFor();
  const taken = page.waitForResponse((r) => r.url().endsWith("/captures"));
  await page.getByRole("button", { name: "Look at it" }).click();
  await looked(page);
  const at = `${(await taken).url()}/${(await (await taken).json()).id}`;
  // The process of the UI closes it, as it does for one of many that nobody has used for long.
  const closed = await page.evaluate(async (at) => {
    const headers = { Authorization: `Bearer ${sessionStorage.getItem("banger.bearer")}` };
    return (await fetch(at, { method: "DELETE", headers })).status;
  }, at);
  assert.equal(closed, 204);
  await page.getByRole("button", { name: "Pull…" }).click();
  await page.getByRole("dialog").getByText("look at the workspace again").waitFor();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("button", { name: "Look again" }).click();
  await looked(page);
  await page.getByRole("button", { name: "Reset…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Reset" }).click();
  await page.getByRole("dialog").getByText("cannot reset a workspace of VM box").waitFor();
  clean(page);
  await page.context().close();
  const quarantines = `${join(world.env.BANGER_STATE_DIR, "workspaces")}/*/store.git/tmp-*`;
  await sh(`ls -d ${quarantines}`);
  await world.banger("ui", "--close");
  await sh(`while ls -d ${quarantines} 2>/dev/null; do sleep 0.1; done`); // what was seen goes with the process
});
