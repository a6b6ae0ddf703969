/** A name with its value, at the top of the page. */
export interface StatusFact {
  readonly name: string;
  readonly value: string;
}

/** How a row stands, shown as colour and as a word for those who see none. */
export type RowState = "good" | "busy" | "bad" | "idle";

/** One thing of the table, for example a function. */
export interface StatusRow {
  /** As many as the table has columns. Plain text: the page escapes it. Never a token or a key. */
  readonly cells: readonly string[];
  readonly state?: RowState;
}

/** Rows of one kind. */
export interface StatusTable {
  readonly title: string;
  readonly columns: readonly string[];
  readonly rows: readonly StatusRow[];
  /** Said in place of rows when there are none. */
  readonly empty: string;
}

/** What the status page shows, asked anew for each view: whoever composes the forwarder knows it, the page does not. */
export interface StatusSource {
  facts(): readonly StatusFact[];
  tables(): readonly StatusTable[];
}
