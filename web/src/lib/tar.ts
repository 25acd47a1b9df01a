// A writer of tar archives in the format of POSIX.1-2001 (pax), as far as files and directories need it.

const block = 512;
const encoder = new TextEncoder();
const longest = 100; // bytes of a name in a header
const largest = 8 ** 11 - 1; // bytes of a file that a header can tell

export interface Entry {
  name: Uint8Array;
  mode: number;
  uid?: number;
  gid?: number;
  /** Seconds since 1970. */
  mtime?: number;
}

export class Tar {
  #left = 0; // bytes of the file that are still to come
  #padding = 0;

  /** Write takes bytes, in their order. */
  constructor(private readonly out: (bytes: Uint8Array) => Promise<void>) {}

  directory(e: Entry): Promise<void> {
    return this.#entry(e, "5", 0);
  }

  /** Begins a file, whose bytes follow by calls of write. */
  async file(e: Entry, size: number): Promise<void> {
    await this.#entry(e, "0", size);
    this.#left = size;
    this.#padding = (block - (size % block)) % block;
    if (size === 0) this.#padding = 0;
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (bytes.length > this.#left) throw new Error("the file has grown while it was read");
    this.#left -= bytes.length;
    await this.out(bytes);
    if (this.#left === 0 && this.#padding) {
      await this.out(new Uint8Array(this.#padding));
      this.#padding = 0;
    }
  }

  async end(): Promise<void> {
    this.#check();
    await this.out(new Uint8Array(2 * block));
  }

  #check(): void {
    if (this.#left) throw new Error("a file has shrunk while it was read");
  }

  async #entry(e: Entry, type: string, size: number): Promise<void> {
    this.#check();
    const records: Uint8Array[] = [];
    if (e.name.length > longest) records.push(record("path", e.name));
    if (size > largest) records.push(record("size", encoder.encode(String(size))));
    if (records.length) {
      const body = concat(records);
      await this.out(header({ name: encoder.encode("pax"), mode: 0o644 }, "x", body.length));
      await this.out(body);
      await this.out(new Uint8Array((block - (body.length % block)) % block));
    }
    await this.out(header(e, type, Math.min(size, largest)));
  }
}

/** Returns a record of an extended header: its own length in decimal, the key and the value. */
function record(key: string, value: Uint8Array): Uint8Array {
  const rest = concat([encoder.encode(` ${key}=`), value, encoder.encode("\n")]);
  let length = rest.length;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return concat([encoder.encode(String(length)), rest]);
}

function concat(parts: Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of parts) {
    all.set(p, at);
    at += p.length;
  }
  return all;
}

function header(e: Entry, type: string, size: number): Uint8Array {
  const h = new Uint8Array(block);
  const put = (at: number, text: string) => h.set(encoder.encode(text), at);
  const octal = (at: number, digits: number, n: number) => put(at, `${Math.trunc(n).toString(8).padStart(digits, "0")}\0`);
  h.set(e.name.subarray(0, longest));
  octal(100, 7, e.mode);
  octal(108, 7, e.uid ?? 0);
  octal(116, 7, e.gid ?? 0);
  octal(124, 11, size);
  octal(136, 11, e.mtime ?? Date.now() / 1000);
  put(148, "        ");
  put(156, type);
  put(257, "ustar\0" + "00");
  octal(148, 6, h.reduce((sum, b) => sum + b, 0));
  return h;
}
