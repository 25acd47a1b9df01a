// An editor of CodeMirror. It is in a shadow tree, where its styles are sheets and not elements, which the page's policy
// forbids.

import { syntaxHighlighting } from "@codemirror/language";
import { Compartment, EditorState } from "@codemirror/state";
import { EditorView, keymap } from "@codemirror/view";
import { basicSetup } from "codemirror";
import { colours, languageOf, look } from "./code";

export interface Editor {
  text: () => string;
  close: () => void;
}

/** Opens an editor with a text. changed is called after each change, and save by Ctrl+S. */
export function edit(host: HTMLElement, name: string, text: string, changed: () => void, save: () => void): Editor {
  const root = host.shadowRoot ?? host.attachShadow({ mode: "open" });
  const parent = document.createElement("div");
  parent.style.height = "100%";
  root.replaceChildren(parent);
  const run = () => {
    save();
    return true;
  };
  const language = new Compartment();
  const view = new EditorView({
    parent,
    root,
    state: EditorState.create({
      doc: text,
      extensions: [
        keymap.of([{ key: "Mod-s", run }]),
        basicSetup,
        syntaxHighlighting(colours),
        look,
        language.of([]),
        EditorView.contentAttributes.of({ "aria-label": `Text of ${name}. Escape, then Tab leaves it.` }),
        EditorView.updateListener.of((u) => u.docChanged && changed()),
        EditorState.lineSeparator.of(text.includes("\r\n") && !/[^\r]\n/.test(text) ? "\r\n" : "\n"),
      ],
    }),
  });
  languageOf(name, text)?.().then(
    (found) => view.dispatch({ effects: language.reconfigure(found) }),
    () => {}, // without it the text has no colours
  );
  return { text: () => view.state.sliceDoc(), close: () => view.destroy() };
}
