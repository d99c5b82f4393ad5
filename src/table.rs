//! Draws tables: columns fitted to the terminal, numbers aligned right, a line under the header.

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, TableComponent, presets};

/// The alignment of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Draws rows under a header, fitted to `width` characters. `None` means the width of the terminal, or no limit if stdout
/// is not a terminal.
pub fn draw(header: &[(&str, Align)], rows: impl IntoIterator<Item = Vec<String>>, width: Option<u16>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(presets::NOTHING);
    table.set_style(TableComponent::HeaderLines, '─');
    table.set_style(TableComponent::MiddleHeaderIntersections, '─');
    if width.is_some() || table.is_tty() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    if let Some(width) = width {
        table.set_width(width);
    }
    let align = |cell: Cell, align| match align {
        Align::Left => cell,
        Align::Right => cell.set_alignment(CellAlignment::Right),
    };
    table.set_header(header.iter().map(|(name, a)| align(Cell::new(name).add_attribute(Attribute::Bold), *a)));
    for row in rows {
        table.add_row(row.into_iter().zip(header).map(|(text, (_, a))| align(Cell::new(text), *a)));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}
