"""A listing on the screen: a line that says what it is, and its rows.

The cursor stays at what it is on, wherever that goes; at the first row it stays there, so that what is most is seen.
"""

from collections.abc import Sequence

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.coordinate import Coordinate
from textual.widgets import DataTable, Static

from fanwire.top.figures import text
from fanwire.top.listings import Column, Entry, Listing, fitted
from fanwire.top.observer import ListedPage
from fanwire.top.palette import Moods, cell, spoken
from fanwire.top.wishes import Preference, nothing

SCROLLBAR = 1


class Pane(Vertical):
    """One of them, with how it is wanted."""

    def __init__(self, view: str, listing: Listing) -> None:
        super().__init__(id=f"{view}-{listing.name}")
        self.listing: Listing = listing
        self.wish: Preference = Preference()
        self._entries: Sequence[Entry] = ()
        self._layout: object = None
        self._shown: Preference | None = None
        self._cells: list[list[tuple[str, str]]] = []

    def compose(self) -> ComposeResult:
        """What is on it."""
        yield Static(classes="heading")
        yield DataTable(cursor_type="row", zebra_stripes=False)

    @property
    def table(self) -> "DataTable[Text]":
        """Its rows."""
        return self.query_one(DataTable)

    @property
    def selected(self) -> Entry | None:
        """What the cursor is on."""
        row = self.table.cursor_row
        return self._entries[row] if 0 <= row < len(self._entries) else None

    def show(self, shown: ListedPage, width: int, moods: Moods) -> None:
        """What there is now, on so many columns."""
        was = self.selected if self.table.cursor_row else None
        columns = fitted(self.listing.columns, width - SCROLLBAR)
        self._head(shown, moods)
        layout = (columns, self.wish.sort_of(self.listing), moods)
        if layout != self._layout:
            self._layout = layout
            self._lay_out(columns, moods)
        self._entries = shown.entries
        self._fill(columns, moods)
        if self.wish != self._shown:
            self._shown, was = self.wish, None
            self.table.move_cursor(row=0, animate=False)
        if was is not None:
            key = self.listing.key(was)
            where = next((at for at, one in enumerate(shown.entries) if self.listing.key(one) == key), None)
            if where is not None and where != self.table.cursor_row:
                self.table.move_cursor(row=where, animate=False)

    def _head(self, shown: ListedPage, moods: Moods) -> None:
        parts = [(f" {self.listing.name} ", "strong"), (f"by {self.wish.sort_of(self.listing)}", "quiet")]
        if self.wish.filter:
            parts += [("  filter ", "quiet"), (text(self.wish.filter), "warning")]
        if shown.trouble:
            parts.append((f"  {shown.trouble}", "bad"))
        elif not shown.entries:
            none, mood = nothing(self.listing, self.wish)
            parts.append((f"  {none}", mood))
        if shown.silent:
            parts.append((f"  no answer of worker {', '.join(map(str, shown.silent[:8]))}", "bad"))
        if shown.beside:
            parts.append((f"  {shown.beside}", "quiet"))
        self.query_one(".heading", Static).update(spoken(parts, moods))

    def _lay_out(self, columns: Sequence[tuple[Column, int]], moods: Moods) -> None:
        self.table.clear(columns=True)
        self._cells = []
        sort = self.wish.sort_of(self.listing)
        for column, width in columns:
            is_by_this = column.sort == sort
            title = f"{column.title[: width - 1]}▼" if is_by_this else column.title[:width]
            self.table.add_column(
                cell(title, "strong" if is_by_this else "quiet", column.is_number, moods), width=width
            )

    def _fill(self, columns: Sequence[tuple[Column, int]], moods: Moods) -> None:
        """Change what differs: whoever has scrolled stays there."""
        table = self.table
        wanted = [
            [(column.show(entry), column.mood(entry) if column.mood else "") for column, _ in columns]
            for entry in self._entries
        ]
        for row, cells in enumerate(wanted):
            drawn = [cell(*one, column.is_number, moods) for one, (column, _) in zip(cells, columns, strict=True)]
            if row >= len(self._cells):
                table.add_row(*drawn, key=str(row))
                continue
            for at, (one, before) in enumerate(zip(cells, self._cells[row], strict=True)):
                if one != before:
                    table.update_cell_at(Coordinate(row, at), drawn[at])
        for row in range(len(wanted), len(self._cells)):
            table.remove_row(str(row))
        self._cells = wanted
