// A registry of images on loopback, of the story's own. It can keep a layer back until the story lets it go.

import { execFile } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { gunzipSync } from "node:zlib";

const run = promisify(execFile);
const digestOf = (bytes) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
const piece = 1024; // bytes of a layer that is held back
const oci = "application/vnd.oci.image";

/** Starts a registry. Its address is host. */
export async function registry() {
  const blobs = new Map();
  const manifests = new Map(); // by name and tag, and by name and digest
  const held = new Map(); // until when a layer is kept back, by its digest
  const keep = (bytes) => {
    blobs.set(digestOf(bytes), bytes);
    return { digest: digestOf(bytes), size: bytes.length };
  };
  const server = createServer(async (request, response) => {
    const [, name, kind, ref] = /^\/v2\/(?:(.+)\/(manifests|blobs)\/(.+))?$/.exec(request.url) ?? [];
    const bytes = kind === "manifests" ? manifests.get(`${name} ${ref}`) : blobs.get(ref);
    if (name && !bytes) return response.writeHead(404).end("{}");
    if (!name) return response.end("{}");
    response.setHeader("Content-Type", kind === "manifests" ? `${oci}.manifest.v1+json` : "application/octet-stream");
    response.setHeader("Docker-Content-Digest", digestOf(bytes));
    response.setHeader("Content-Length", bytes.length);
    if (request.method === "HEAD") return response.end();
    if (!held.has(ref)) return response.end(bytes);
    let sent = bytes.length >> 1;
    let go = false;
    void held.get(ref).then(() => (go = true));
    response.write(bytes.subarray(0, sent));
    // The rest comes slowly, as from a slow registry: progress is told when bytes come.
    while (!go && !response.destroyed && sent + piece < bytes.length) {
      response.write(bytes.subarray(sent, (sent += piece)));
      await Promise.race([held.get(ref), new Promise((done) => setTimeout(done, 200))]);
    }
    response.end(bytes.subarray(sent));
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return {
    host: `127.0.0.1:${server.address().port}`,
    /** Adds an image of one layer, with a file of random bytes. config is what it says of itself. */
    async add(name, tag, { size = 4096, config = {}, history = [], author } = {}) {
      const dir = await mkdtemp(join(tmpdir(), "layer-"));
      await mkdir(join(dir, "data"));
      await writeFile(join(dir, "data", "file"), randomBytes(size));
      await run("tar", ["-czf", join(dir, "layer.tar.gz"), "-C", dir, "data"]);
      const bytes = await readFile(join(dir, "layer.tar.gz"));
      await rm(dir, { recursive: true });
      const layer = keep(bytes);
      const about = {
        architecture: process.arch === "x64" ? "amd64" : process.arch,
        os: "linux",
        created: "2026-11-01T00:00:00Z",
        author,
        config,
        rootfs: { type: "layers", diff_ids: [digestOf(gunzipSync(bytes))] },
        history: [{ created: "2026-11-01T00:00:00Z", created_by: "COPY data /" }, ...history],
      };
      const manifest = Buffer.from(
        JSON.stringify({
          schemaVersion: 2,
          mediaType: `${oci}.manifest.v1+json`,
          config: { mediaType: `${oci}.config.v1+json`, ...keep(Buffer.from(JSON.stringify(about))) },
          layers: [{ mediaType: `${oci}.layer.v1.tar+gzip`, ...layer }],
        }),
      );
      manifests.set(`${name} ${tag}`, manifest);
      manifests.set(`${name} ${digestOf(manifest)}`, manifest);
      return {
        /** Sends the second half of the layer very slowly until the returned function is called. */
        hold() {
          let go;
          held.set(layer.digest, new Promise((done) => (go = done)));
          return go;
        },
      };
    },
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}
