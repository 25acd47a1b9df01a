// Two texts side by side, or one below the other, with what differs. It is in a shadow tree, as the editor is.

import { syntaxHighlighting } from "@codemirror/language";
import { MergeView, unifiedMergeView } from "@codemirror/merge";
import { Compartment, EditorState, type Extension, Text } from "@codemirror/state";
import { EditorView, highlightSpecialChars, lineNumbers } from "@codemirror/view";
import { colours, languageOf, look } from "./code";

const gone = "color-mix(in srgb, var(--bad) 14%, transparent)";
const goneText = "color-mix(in srgb, var(--bad) 30%, transparent)";
const come = "color-mix(in srgb, var(--good) 14%, transparent)";
const comeText = "color-mix(in srgb, var(--good) 30%, transparent)";

const marks = EditorView.theme({
  "&.cm-merge-a .cm-changedLine, .cm-deletedChunk": { backgroundColor: gone },
  "&.cm-merge-a .cm-changedText, &.cm-merge-b .cm-deletedChunk .cm-deletedText": { background: goneText },
  "&.cm-merge-b .cm-changedLine, &.cm-merge-b .cm-inlineChangedLine, &.cm-merge-b .cm-insertedLine": {
    backgroundColor: come,
  },
  "&.cm-merge-b .cm-changedText": { background: comeText },
  "&.cm-merge-a .cm-changedLineGutter, &.cm-merge-b .cm-deletedLineGutter": { background: "var(--bad)" },
  "&.cm-merge-b .cm-changedLineGutter": { background: "var(--good)" },
  "&.cm-editor .cm-collapsedLines": { color: "var(--muted)", background: "var(--raised)" },
  ".cm-specialChar": { color: "var(--bad)" },
});

// The work on texts that have little in common is bounded.
const diffConfig = { scanLimit: 1000, timeout: 500 };

/** Shows two texts in a host. all also shows what is the same in both. It returns what ends it. */
export function show(
  host: HTMLElement,
  name: string,
  before: string,
  after: string,
  { beside, all }: { beside: boolean; all: boolean },
): () => void {
  const root = host.shadowRoot ?? host.attachShadow({ mode: "open" });
  const parent = document.createElement("div");
  parent.style.height = "100%";
  root.replaceChildren(parent);
  const language = new Compartment();
  const common = (side: string): Extension => [
    lineNumbers(),
    highlightSpecialChars(),
    syntaxHighlighting(colours),
    look,
    marks,
    EditorView.lineWrapping,
    EditorState.readOnly.of(true),
    EditorState.lineSeparator.of("\n"), // others are characters, whose change is a change
    EditorView.contentAttributes.of({ "aria-label": `${side} of ${name}`, "aria-readonly": "true", tabindex: "0" }),
    language.of([]),
  ];
  const collapseUnchanged = all ? undefined : { margin: 3, minSize: 6 };
  let views: EditorView[];
  let end: () => void;
  if (beside) {
    const view = new MergeView({
      a: { doc: before, extensions: common("Before") },
      b: { doc: after, extensions: common("After") },
      parent,
      root,
      collapseUnchanged,
      diffConfig,
    });
    view.dom.style.height = "100%";
    views = [view.a, view.b];
    end = () => view.destroy();
  } else {
    const original = Text.of(before.split("\n"));
    const merge = unifiedMergeView({ original, mergeControls: false, collapseUnchanged, diffConfig });
    const state = EditorState.create({ doc: after, extensions: [common("Changes"), merge] });
    const view = new EditorView({ parent, root, state });
    views = [view];
    end = () => view.destroy();
  }
  let over = false;
  languageOf(name, after || before)?.().then(
    (found) => over || views.forEach((v) => v.dispatch({ effects: language.reconfigure(found) })),
    () => {}, // without it the text has no colours
  );
  return () => {
    over = true;
    end();
  };
}
