// The borders of the UI: other pages, guests, other users of the host.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { clean, open, shows } from "./world.js";

const hostile = `<img src=x onerror="document.title='owned'">`;

let world;
before(async () => {
  world = await open();
  await world.banger("run", "-d", "--name", "box", "--label", `about=${hostile}`, "-p", "18080:80", "debian-bookworm", "--", "perl", "-e", server);
});
after(() => world.close());

// A web server in the guest, which says in its page what it was asked. The image has Perl and nothing larger.
const server = `use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 80, Listen => 5, ReuseAddr => 1) or die;
while (my $c = $s->accept) { my $r = ""; while (<$c>) { last if /^\\r?$/; $r .= $_ }
print $c "HTTP/1.0 200 OK\\r\\nContent-Type: text/html\\r\\n\\r\\n<pre id=asked>$r</pre>"; close $c }`;

/** Serves a page from a port of its own on loopback, and calls f with its address. */
async function elsewhere(html, f) {
  const asked = [];
  const other = createServer((request, response) => {
    asked.push(request.headers);
    response.setHeader("Content-Type", "text/html");
    response.end(html);
  });
  await new Promise((done) => other.listen(0, "127.0.0.1", done));
  try {
    await f(`http://127.0.0.1:${other.address().port}/`, asked);
  } finally {
    other.close();
  }
}

test("a page of another port on loopback gets nothing", async () => {
  const ours = await world.visit("/");
  await ours.getByRole("link", { name: "box" }).first().waitFor();
  const ui = new URL(ours.url()).origin;
  await elsewhere("<title>elsewhere</title>", async (address) => {
    const page = await ours.context().newPage(); // the same browser, which has a session in its other tab
    await page.goto(address);
    const got = await page.evaluate(async (ui) => {
      const said = {};
      const ask = async (name, f) => {
        try {
          said[name] = await f();
        } catch (e) {
          said[name] = e.name;
        }
      };
      for (const mode of ["cors", "no-cors"]) {
        await ask(`GET, ${mode}`, async () => (await fetch(`${ui}/v1/vms`, { mode, credentials: "include" })).type);
        await ask(`POST, ${mode}`, async () => (await fetch(`${ui}/v1/vms/box/kill?signal=9`, { method: "POST", mode, credentials: "include" })).type);
      }
      await ask("DELETE", async () => (await fetch(`${ui}/v1/vms/box?force=true`, { method: "DELETE", credentials: "include" })).status);
      await ask("WebSocket", () => new Promise((done) => {
        const socket = new WebSocket(`${ui.replace("http", "ws")}/v1/vms/box/exec`);
        socket.onopen = () => done("open");
        socket.onerror = () => done("refused");
      }));
      await ask("script", () => new Promise((done) => {
        const script = document.createElement("script");
        script.src = `${ui}/v1/vms`;
        script.onload = () => done("loaded");
        script.onerror = () => done("refused");
        document.head.append(script);
      }));
      await ask("frame", () => new Promise((done) => {
        const frame = document.createElement("iframe");
        frame.src = `${ui}/`;
        frame.onload = () => {
          try {
            done(frame.contentDocument ? frame.contentDocument.title || "empty" : "another origin");
          } catch {
            done("another origin");
          }
        };
        document.body.append(frame);
      }));
      await ask("form", () => new Promise((done) => {
        const target = document.createElement("iframe");
        target.name = "target";
        document.body.append(target);
        const form = document.createElement("form");
        form.method = "POST";
        form.target = "target";
        form.action = `${ui}/v1/vms/box/stop`;
        document.body.append(form);
        target.onload = () => done("answered");
        form.submit();
      }));
      await ask("window", async () => {
        const w = window.open(`${ui}/`);
        await new Promise((done) => setTimeout(done, 1000));
        return !w || w.closed ? "closed" : "held";
      });
      return said;
    }, ui);
    assert.deepEqual(got, {
      "GET, cors": "TypeError",
      "POST, cors": "TypeError",
      "GET, no-cors": "TypeError", // Cross-Origin-Resource-Policy
      "POST, no-cors": "TypeError",
      DELETE: "TypeError",
      WebSocket: "refused",
      script: "refused",
      frame: "another origin",
      form: "answered", // by a refusal, as the machine below tells
      window: "closed", // Cross-Origin-Opener-Policy cuts the two apart
    });
    await page.close();
  });
  assert.match(await world.banger("ps"), /running/);
  await ours.context().close();
});

test("a page of a guest finds no secret of the UI, and the UI only links to it", async () => {
  const page = await world.visit("/");
  const link = page.getByRole("link", { name: /18080/ }).first();
  await link.waitFor();
  assert.equal(await link.getAttribute("href"), "http://127.0.0.1:18080");
  assert.match(await link.getAttribute("rel"), /noopener/);
  assert.deepEqual(await page.context().cookies(), []);
  const [popup] = await Promise.all([page.context().waitForEvent("page"), link.click()]);
  const asked = await popup.locator("#asked").innerText();
  assert.doesNotMatch(asked, /cookie|authorization|referer|token/i);
  assert.equal(await popup.evaluate(() => window.opener), null);
  clean(page);
  await page.context().close();
});

test("names of guests are text, wherever they are shown", async () => {
  await world.banger("exec", "box", "sh", "-c", `mkdir -p /evil && touch "/evil/${hostile.replaceAll('"', '\\"').replaceAll("/", "")}"`);
  await world.banger("session", "start", "-t", "--name", "evil", "box", "--", "sh", "-c", `printf '\\033]0;%s\\007shown' '${hostile.replaceAll("'", "")}'; sleep 1000`);
  for (const path of ["/", "/vms/box", "/vms/box/sessions", "/vms/box/terminal?session=evil"]) {
    const page = await world.visit(path);
    await page.getByRole("heading", { level: 1 }).waitFor();
    if (path.includes("session=")) await shows(page, "shown");
    else await page.getByText("onerror", { exact: false }).first().waitFor();
    assert.equal(await page.locator("img").count(), 0, path);
    assert.notEqual(await page.title(), "owned");
    clean(page);
    await page.context().close();
  }
});

test("another user of the host gets nothing", { skip: process.getuid() !== 0 && "it needs root, who can be another user" }, async () => {
  const page = await world.visit("/");
  const { port } = new URL(page.url());
  const asNobody = (script) =>
    new Promise((done) => execFile("setpriv", ["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script], (_, out) => done(out)));
  const python = (path) =>
    `python3 -c 'import urllib.request, urllib.error
try: print(urllib.request.urlopen("http://127.0.0.1:${port}${path}").status)
except urllib.error.HTTPError as e: print(e.code)'`;
  assert.equal((await asNobody(python("/v1/vms"))).trim(), "401");
  assert.equal((await asNobody(python("/ui/sessions"))).trim(), "401");
  assert.equal((await asNobody(`cat ${world.env.BANGER_RUN_DIR}/ui.lock ${world.env.BANGER_RUN_DIR}/ui-*.html; ls ${world.env.BANGER_RUN_DIR}`)).trim(), "");
  const commands = await asNobody("cat /proc/[0-9]*/cmdline | tr '\\0' ' '");
  assert.doesNotMatch(commands, /token=[0-9a-f]{64}/);
  await page.context().close();
});
