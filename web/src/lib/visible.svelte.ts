// Which rows of a long list of rows with one height are in sight. Only those are in the document.

const beyond = 4; // rows above and below that are there too, so that scrolling shows no gap
const step = 8; // rows that are made at once when a list appears, so that no task of the browser becomes long

export class Visible {
  #top = $state(0);
  #height = $state(600);
  #width = $state(1000);
  #most = $state(step);
  #element: HTMLElement | null = null;
  #row: () => number;
  #count: () => number;

  /** row and count say how high a row is, and how many rows there are. */
  constructor(row: () => number, count: () => number) {
    this.#row = row;
    this.#count = count;
  }

  first = $derived.by(() => Math.max(Math.min(Math.floor(this.#top / this.#row()), this.#count()) - beyond, 0));
  last = $derived.by(() => {
    const end = Math.ceil((this.#top + this.#height) / this.#row()) + beyond;
    return Math.min(end, this.#count(), this.first + this.#most);
  });
  /** The space of the rows before and after those in the document. */
  before = $derived.by(() => this.first * this.#row());
  after = $derived.by(() => (this.#count() - this.last) * this.#row());

  get width(): number {
    return this.#width;
  }

  /** Watches the element that scrolls. It is an attachment. */
  watch = (element: HTMLElement): (() => void) => {
    this.#element = element;
    const scroll = () => (this.#top = element.scrollTop);
    const resized = new ResizeObserver(() => {
      this.#height = element.clientHeight;
      this.#width = element.clientWidth;
    });
    element.addEventListener("scroll", scroll, { passive: true });
    resized.observe(element);
    let next = 0;
    const grow = () => {
      this.#most += step;
      if ((this.#most - 2 * beyond) * this.#row() < screen.height) next = setTimeout(grow);
      else this.#most = Infinity;
    };
    next = setTimeout(grow);
    return () => {
      clearTimeout(next);
      element.removeEventListener("scroll", scroll);
      resized.disconnect();
      this.#element = null;
    };
  };

  /** Scrolls so that a row is in sight, below a header of a given height. */
  reveal(index: number, header: number): void {
    const e = this.#element;
    if (!e) return;
    const top = index * this.#row();
    if (top < e.scrollTop) e.scrollTop = top;
    else if (top + this.#row() + header > e.scrollTop + e.clientHeight)
      e.scrollTop = top + this.#row() + header - e.clientHeight;
  }
}
