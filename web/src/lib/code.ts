// How texts of programs are shown: the colours of the page, and languages by the names of files.

import { HighlightStyle, StreamLanguage, type StreamParser } from "@codemirror/language";
import type { Extension } from "@codemirror/state";
import { EditorView } from "@codemirror/view";
import { tags } from "@lezer/highlight";

type Load = () => Promise<Extension>;

const old = async (mode: Promise<StreamParser<unknown>>): Promise<Extension> => StreamLanguage.define(await mode);
const python: Load = async () => (await import("@codemirror/lang-python")).python();
const shell: Load = () => old(import("@codemirror/legacy-modes/mode/shell").then((m) => m.shell));

// Each language is a file of its own, which is loaded when a text is of it.
const languages: [RegExp, Load][] = [
  [
    /\.(m?[jt]sx?|cjs)$/,
    async () => (await import("@codemirror/lang-javascript")).javascript({ jsx: true, typescript: true }),
  ],
  [/\.(json|jsonc|webmanifest)$/, async () => (await import("@codemirror/lang-json")).json()],
  [/\.ya?ml$/, () => old(import("@codemirror/legacy-modes/mode/yaml").then((m) => m.yaml))],
  [/\.pyi?$/, python],
  [/\.(html?|svelte|vue|svg|xml)$/, () => old(import("@codemirror/legacy-modes/mode/xml").then((m) => m.html))],
  [/\.(css|scss|less)$/, async () => (await import("@codemirror/lang-css")).css()],
  [/\.go$/, () => old(import("@codemirror/legacy-modes/mode/go").then((m) => m.go))],
  [/\.rs$/, () => old(import("@codemirror/legacy-modes/mode/rust").then((m) => m.rust))],
  [
    /\.(toml|ini|conf|cfg|service|socket|timer)$/,
    () => old(import("@codemirror/legacy-modes/mode/toml").then((m) => m.toml)),
  ],
  [
    /(^|\.)(Docker|Container)file$/,
    () => old(import("@codemirror/legacy-modes/mode/dockerfile").then((m) => m.dockerFile)),
  ],
  [/\.(sh|bash|zsh|env)$|^\.?(bash|z)(rc|_profile|env)$|^\.?profile$/, shell],
];

/** Returns what loads the colours of a language, for the name of a file and its text. */
export function languageOf(name: string, text: string): Load | undefined {
  const found = languages.find(([form]) => form.test(name));
  if (found) return found[1];
  if (/^#!.*\b(ba|z|da)?sh\b/.test(text)) return shell;
  return /^#!.*\bpython/.test(text) ? python : undefined;
}

/** How editors look, in the colours of the page. */
export const look = EditorView.theme({
  "&": { height: "100%", backgroundColor: "var(--surface)", color: "var(--text)", fontSize: "13px" },
  ".cm-scroller": { fontFamily: "var(--mono)", overflow: "auto" },
  ".cm-gutters": { backgroundColor: "var(--surface)", color: "var(--muted)", borderRight: "1px solid var(--line)" },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "var(--hover)" },
  ".cm-cursor": { borderLeftColor: "var(--accent)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": {
    backgroundColor: "var(--selected)",
  },
  ".cm-panels": { backgroundColor: "var(--raised)", color: "var(--text)" },
});

export const colours = HighlightStyle.define([
  { tag: [tags.keyword, tags.operatorKeyword, tags.modifier], color: "var(--accent)" },
  { tag: [tags.string, tags.special(tags.string), tags.regexp], color: "var(--good)" },
  { tag: [tags.number, tags.bool, tags.null, tags.atom], color: "var(--warn)" },
  { tag: [tags.comment], color: "var(--muted)" },
  { tag: [tags.propertyName, tags.attributeName, tags.heading], color: "var(--terminal-cyan)" },
  { tag: [tags.typeName, tags.className, tags.tagName], color: "var(--terminal-magenta)" },
  { tag: [tags.invalid], color: "var(--bad)" },
]);
