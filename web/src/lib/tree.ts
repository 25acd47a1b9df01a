// Snapshots as a tree.

import type { Snapshot } from "./nouns";

export interface Node {
  snapshot: Snapshot;
  children: Node[];
}

/** Returns the snapshots that have no parent in the list, the oldest first, each with its children. */
export function tree(list: readonly Snapshot[]): Node[] {
  const nodes = new Map(list.toReversed().map((snapshot) => [snapshot.id, { snapshot, children: [] as Node[] }]));
  const roots: Node[] = [];
  for (const node of nodes.values()) (nodes.get(node.snapshot.parent ?? "")?.children ?? roots).push(node);
  return roots;
}
