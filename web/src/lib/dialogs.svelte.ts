// The dialog that is open. A dialog is a component, loaded when it is opened; it gets a function that closes it.

import type { Component } from "svelte";
import { operations } from "./operations.svelte";

export type Dialog<Props> = Component<Props & { close: () => void }>;

class Dialogs {
  current = $state.raw<{ component: Component<Record<string, unknown>>; props: Record<string, unknown> } | null>(
    null,
  );

  /** Opens a dialog in place of one that may be open. */
  async open<Props extends object>(load: () => Promise<{ default: Dialog<Props> }>, props: Props): Promise<void> {
    const loaded = await load().catch((e) => operations.fail("Open the dialog", e));
    if (!loaded) return;
    this.current = {
      component: loaded.default as unknown as Component<Record<string, unknown>>,
      props: { ...props, close: () => this.close() },
    };
  }

  close(): void {
    this.current = null;
  }
}

export const dialogs = new Dialogs();
