// Which rows of a long list of rows with one height are in sight. Only those are in the document.

const beyond = 6; // rows above and below that are there too, so that scrolling shows no gap

export class Visible {
  #top = $state(0);
  #height = $state(600);
  #width = $state(1000);
  #element: HTMLElement | null = null;
  #row: () => number;
  #count: () => number;

  /** row and count say how high a row is, and how many rows there are. */
  constructor(row: () => number, count: () => number) {
    this.#row = row;
    this.#count = count;
  }

  first = $derived.by(() => Math.max(Math.min(Math.floor(this.#top / this.#row()), this.#count()) - beyond, 0));
  last = $derived.by(() => Math.min(Math.ceil((this.#top + this.#height) / this.#row()) + beyond, this.#count()));
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
    return () => {
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
    else if (top + this.#row() + header > e.scrollTop + e.clientHeight) e.scrollTop = top + this.#row() + header - e.clientHeight;
  }
}
