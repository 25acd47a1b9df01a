// A terminal of xterm.js that suits this page: its policy allows no style that a program adds, and what a guest writes
// may change nothing of the browser without being asked.

import { FitAddon } from "@xterm/addon-fit";
import { SearchAddon } from "@xterm/addon-search";
import { WebLinksAddon } from "@xterm/addon-web-links";
import { type ITheme, Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";

/** What a guest's program wants of the browser, which asks first. */
export interface Wishes {
  openLink: (address: string) => void;
  copy: (text: string) => void;
}

const longest = 64 << 10; // characters of what a program may offer for the clipboard

/** xterm.js adds elements <style> and attributes style, which the policy forbids. It gets other elements and a sheet. */
function documentWithSheets(): Document {
  const element = (name: string): HTMLElement => {
    if (name === "style") return sheetElement();
    const made = document.createElement(name);
    const set = made.setAttribute.bind(made);
    made.setAttribute = (attribute, value) => {
      if (attribute === "style") made.style.cssText = value;
      else set(attribute, value);
    };
    return made;
  };
  return new Proxy(document, {
    get(target, name) {
      if (name === "createElement") return element;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** Calls a function in which xterm.js adds an element <style> to the document itself, whatever document it was given. */
function openWithSheets(open: () => void): void {
  const create = document.createElement.bind(document);
  document.createElement = (name: string) => (name === "style" ? sheetElement() : create(name));
  try {
    open();
  } finally {
    Reflect.deleteProperty(document, "createElement"); // the prototype has it
  }
}

/** Returns an element whose text is a style sheet of the page for as long as it is there. */
function sheetElement(): HTMLElement {
  const made = document.createElement("span");
  made.hidden = true;
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  Object.defineProperty(made, "textContent", { set: (text: string) => sheet.replaceSync(text) });
  const remove = made.remove.bind(made);
  made.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((s) => s !== sheet);
    remove();
  };
  return made;
}

function themeOf(element: Element): ITheme {
  const value = (name: string) => getComputedStyle(element).getPropertyValue(name).trim();
  return {
    background: value("--surface"),
    foreground: value("--text"),
    cursor: value("--accent"),
    cursorAccent: value("--surface"),
    selectionBackground: value("--selected"),
    black: value("--terminal-black"),
    red: value("--bad"),
    green: value("--good"),
    yellow: value("--warn"),
    blue: value("--accent"),
    magenta: value("--terminal-magenta"),
    cyan: value("--terminal-cyan"),
    white: value("--muted"),
    brightBlack: value("--edge"),
    brightRed: value("--bad"),
    brightGreen: value("--good"),
    brightYellow: value("--warn"),
    brightBlue: value("--accent"),
    brightMagenta: value("--terminal-magenta"),
    brightCyan: value("--terminal-cyan"),
    brightWhite: value("--text"),
  };
}

export interface Opened {
  terminal: Terminal;
  search: SearchAddon;
  fit: () => void;
  /** Takes the colours of the page again, after they have changed. */
  paint: () => void;
  close: () => void;
}

/** Opens a terminal in an element. */
export function open(element: HTMLElement, readOnly: boolean, screenReader: boolean, wishes: Wishes): Opened {
  const ask = (_: unknown, address: string) => wishes.openLink(address);
  const terminal = new Terminal({
    cursorBlink: false,
    disableStdin: readOnly,
    documentOverride: documentWithSheets(),
    fontFamily: getComputedStyle(element).getPropertyValue("--mono"),
    fontSize: 13,
    linkHandler: { activate: ask },
    minimumContrastRatio: 4.5,
    screenReaderMode: screenReader,
    scrollback: 5000,
    theme: themeOf(element),
  });
  const fit = new FitAddon();
  const search = new SearchAddon();
  terminal.loadAddon(fit);
  terminal.loadAddon(search);
  terminal.loadAddon(new WebLinksAddon(ask));
  // OSC 52: a program of the guest wants to set the clipboard. It is never told what the clipboard has.
  terminal.parser.registerOscHandler(52, (data) => {
    const encoded = data.slice(data.indexOf(";") + 1);
    if (encoded === "?" || encoded.length > longest) return true;
    try {
      const bytes = Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
      wishes.copy(new TextDecoder().decode(bytes));
    } catch {
      // It is not base64, so there is nothing to copy.
    }
    return true;
  });
  openWithSheets(() => terminal.open(element));
  return {
    terminal,
    search,
    fit: () => fit.fit(),
    paint: () => (terminal.options.theme = themeOf(element)),
    close: () => terminal.dispose(),
  };
}
