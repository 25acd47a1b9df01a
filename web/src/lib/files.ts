// Files of a machine. A path is bytes, as Linux has them: here it is a text in which each byte that is not plain is
// escaped as in an address. So it goes through addresses unchanged, whatever the bytes mean.

import { Problem, send, ticket } from "./api";
import { Frame, json, Stream } from "./frames";
import type { CopyReport, FileInfo } from "./nouns";
import { Tar } from "./tar";

/** An escaped path, such as /a%20b. */
export type Path = string;

const plain = /^[A-Za-z0-9._~-]$/;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Escapes the bytes of a name, or of a path if slashes stay. */
export const escape = (bytes: Uint8Array): Path =>
  Array.from(bytes, (b) => {
    const c = String.fromCharCode(b);
    return plain.test(c) || c === "/" ? c : `%${b.toString(16).padStart(2, "0").toUpperCase()}`;
  }).join("");

export const escapeText = (text: string): Path => escape(encoder.encode(text));

/** Returns the bytes of a path. */
export function bytesOf(path: Path): Uint8Array<ArrayBuffer> {
  const bytes: number[] = [];
  for (let i = 0; i < path.length; i++) {
    const code = path[i] === "%" ? Number.parseInt(path.slice(i + 1, i + 3), 16) : Number.NaN;
    if (Number.isNaN(code)) bytes.push(path.charCodeAt(i) & 0xff);
    else {
      bytes.push(code);
      i += 2;
    }
  }
  return Uint8Array.from(bytes);
}

/** Returns a path for people. Bytes that are no text are shown as �. */
export const textOf = (path: Path): string => decoder.decode(bytesOf(path));

export const join = (dir: Path, name: Path): Path => (dir.endsWith("/") ? dir + name : `${dir}/${name}`);

export const parent = (path: Path): Path => path.slice(0, path.lastIndexOf("/")) || "/";

export const nameOf = (path: Path): Path => path.slice(path.lastIndexOf("/") + 1);

/** Returns the bytes of a name that the API gives in base64. */
export const named = (base64: string): Path => escape(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)));

const base = (vm: string): string => `/v1/vms/${encodeURIComponent(vm)}/files`;

/** What is at a path, without following a symlink there unless follow is set. */
export async function stat(vm: string, path: Path, follow: boolean): Promise<FileInfo> {
  return (await send("POST", `${base(vm)}?op=stat&follow=${follow}&path=${path}`)).json();
}

/** What is in a directory. */
export async function list(vm: string, path: Path, signal: AbortSignal): Promise<FileInfo> {
  return (await send("POST", `${base(vm)}?op=list&path=${path}`, { signal })).json();
}

const kinds: Record<number, string> = {
  0o040000: "directory",
  0o100000: "file",
  0o120000: "link",
  0o010000: "pipe",
  0o140000: "socket",
  0o020000: "device",
  0o060000: "device",
};

export const kindOf = (info: FileInfo): string => kinds[info.mode & 0o170000] ?? "unknown";

/** Returns permissions as ls shows them. */
export function permissions(mode: number): string {
  const one = (bits: number, special: boolean, letter: string) =>
    (bits & 4 ? "r" : "-") +
    (bits & 2 ? "w" : "-") +
    (special ? (bits & 1 ? letter : letter.toUpperCase()) : bits & 1 ? "x" : "-");
  return (
    one((mode >> 6) & 7, (mode & 0o4000) !== 0, "s") +
    one((mode >> 3) & 7, (mode & 0o2000) !== 0, "s") +
    one(mode & 7, (mode & 0o1000) !== 0, "t")
  );
}

/** Reads a file, up to a number of bytes. */
export async function read(vm: string, path: Path, most: number, signal: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
  const response = await send("GET", `${base(vm)}/content?path=${path}`, { signal });
  const reader = response.body!.getReader();
  const parts: Uint8Array[] = [];
  let size = 0;
  while (size < most) {
    const { value, done } = await reader.read();
    if (done) break;
    parts.push(value);
    size += value.length;
  }
  await reader.cancel();
  const all = new Uint8Array(Math.min(size, most));
  let at = 0;
  for (const part of parts) {
    all.set(part.subarray(0, all.length - at), at);
    at += part.length;
  }
  return all;
}

/** Lets the browser save a file, or a directory as a tar. */
export async function download(vm: string, path: Path): Promise<void> {
  const at = `${base(vm)}/content`;
  const a = document.createElement("a");
  a.href = `${at}?path=${path}&ticket=${await ticket("GET", decodeURI(at))}`;
  a.download = "";
  document.body.append(a);
  a.click();
  a.remove();
}

/** Takes files into the guest, as tar gives them. To a directory they come beside what it has. */
function extract(
  vm: string,
  path: Path,
  query: { into?: boolean; owners?: boolean },
  write: (tar: Tar) => Promise<void>,
): Promise<CopyReport> {
  return new Promise((resolve, reject) => {
    const stream = new Stream(
      base(vm),
      { op: "extract", ...query },
      "banger-files",
      {
        frame: (type, payload) => {
          if (type !== Frame.response) return;
          resolve(json<CopyReport>(payload));
          stream.done();
        },
        end: (problem) => problem && reject(problem),
      },
      undefined,
      `path=${path}`,
    );
    const tar = new Tar((bytes) => stream.sendAll(Frame.stdin, bytes));
    write(tar)
      .then(() => tar.end())
      .then(() => stream.send(Frame.stdinEOF))
      .catch((e) => {
        stream.close(); // what has come so far is not kept as whole
        reject(e);
      });
  });
}

/** Writes the content of a file that is there, which keeps its owner and permissions. */
export async function save(vm: string, path: Path, content: Uint8Array<ArrayBuffer>, before: FileInfo): Promise<void> {
  const now = await stat(vm, path, true);
  if (now.mtime_ns !== before.mtime_ns || now.size !== before.size) {
    throw new Problem(`${textOf(path)} has changed in the machine since it was opened`, "open it again, or save once more");
  }
  await extract(vm, path, { owners: true }, async (tar) => {
    await tar.file({ name: bytesOf(nameOf(path)), mode: now.mode & 0o7777, uid: now.uid, gid: now.gid }, content.length);
    await tar.write(content);
  });
}

export interface Upload {
  /** A path below the directory, with slashes. */
  name: string;
  /** Absent for a directory. */
  file?: File;
}

/** Copies files and directories of the user's host into a directory of the guest. They belong to root there. */
export function upload(vm: string, dir: Path, what: Upload[], tell: (text: string) => void): Promise<CopyReport> {
  return extract(vm, dir, { into: true }, async (tar) => {
    for (const { name, file } of what) {
      tell(name);
      const entry = { name: encoder.encode(name), mtime: file ? file.lastModified / 1000 : undefined };
      if (!file) {
        await tar.directory({ ...entry, mode: 0o755 });
        continue;
      }
      await tar.file({ ...entry, mode: 0o644 }, file.size);
      const reader = file.stream().getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        await tar.write(value);
      }
    }
  });
}

/** Returns what was dropped, with all that is in directories. It must be called before the event ends. */
export async function dropped(data: DataTransfer): Promise<Upload[]> {
  const found = Array.from(data.items, (item) => item.webkitGetAsEntry() ?? item.getAsFile());
  const all: Upload[] = [];
  for (const one of found) {
    if (one instanceof File) all.push({ name: one.name, file: one });
    else if (one) await walk(one, all);
  }
  return all;
}

async function walk(entry: FileSystemEntry, all: Upload[]): Promise<void> {
  const name = entry.fullPath.replace(/^\//, "");
  if (entry.isFile) {
    const file = await new Promise<File>((done, fail) => (entry as FileSystemFileEntry).file(done, fail));
    all.push({ name, file });
    return;
  }
  all.push({ name });
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((done, fail) => reader.readEntries(done, fail));
    if (!some.length) return; // only then is the list at its end
    for (const e of some) await walk(e, all);
  }
}
