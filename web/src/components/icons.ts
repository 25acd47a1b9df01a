// The icons of the page, as paths on a ground of 16 by 16.

export const icons = {
  machines: "M2.5 3h11v4h-11zM2.5 9h11v4h-11zM5 5h.01M5 11h.01",
  images: "M8 2l6 3-6 3-6-3zM2 8l6 3 6-3M2 11l6 3 6-3",
  network: "M8 2.5v4M8 6.5h0M3.5 13.5v-3h9v3M8 10.5v-4M6 2.5h4M2 13.5h3M11 13.5h3",
  system: "M2 4h6M12 4h2M10 2.5v3M2 8h2M8 8h6M6 6.5v3M2 12h7M13 12h1M11 10.5v3",
  plus: "M8 3v10M3 8h10",
  search: "M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10zM10.6 10.6L14 14",
  play: "M5 3l8 5-8 5z",
  stop: "M4 4h8v8H4z",
  restart: "M13 8a5 5 0 1 1-1.5-3.6M13 2v3h-3",
  pause: "M5.5 3v10M10.5 3v10",
  moon: "M13 9.5A5.5 5.5 0 0 1 6.5 3 5.5 5.5 0 1 0 13 9.5z",
  sun: "M8 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM8 1.5v1M8 13.5v1M1.5 8h1M13.5 8h1M3.4 3.4l.7.7M11.9 11.9l.7.7M3.4 12.6l.7-.7M11.9 4.1l.7-.7",
  contrast: "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12zM8 2v12M8 5h4.5M8 8h6M8 11h4.5",
  compare: "M2.5 3h4v10h-4zM9.5 3h4v10h-4z",
  fork: "M4 5.5v5M4 5.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3zM4 13.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3zM12 5.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3zM12 5.5c0 3-8 1.5-8 5",
  camera: "M2 5h3l1-2h4l1 2h3v8H2zM8 11a2.3 2.3 0 1 0 0-4.6 2.3 2.3 0 0 0 0 4.6z",
  edit: "M3 13l.5-3L11 2.5 13.5 5 6 12.5z",
  remove: "M3 4.5h10M6 4.5V3h4v1.5M4.5 4.5l.5 9h6l.5-9",
  allowed: "M3 8.5l3.5 3.5L13 4.5",
  refused: "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12zM3.8 3.8l8.4 8.4",
  close: "M4 4l8 8M12 4l-8 8",
  down: "M4 6l4 4 4-4",
  up: "M4 10l4-4 4 4",
  more: "M4 8h.01M8 8h.01M12 8h.01",
  table: "M2 3h12v10H2zM2 6.5h12M6 6.5V13",
  cards: "M2 2.5h5v4.5H2zM9 2.5h5v4.5H9zM2 9h5v4.5H2zM9 9h5v4.5H9z",
  link: "M9 2.5h4.5V7M13.5 2.5L7 9M11.5 9v4.5h-9v-9H7",
  back: "M10 3L5 8l5 5",
} as const;

export type IconName = keyof typeof icons;
