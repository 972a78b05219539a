//! A table in a box that scrolls if it must, so that the page does not. On a narrow screen, the style shows each row as a
//! list of cells with their columns' names; so roles are explicit, which would be lost by that.

use std::fmt::Write as _;

/// The kind of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableColumn {
    /// The name of the row.
    Header,
    /// Text that may be broken anywhere.
    Text,
    /// Text that is not broken.
    Whole,
    /// A number.
    Number,
}

impl TableColumn {
    const fn class(self) -> &'static str {
        match self {
            Self::Header => "name",
            Self::Text => "text",
            Self::Whole => "whole",
            Self::Number => "number",
        }
    }
}

/// A table that is being written.
pub(super) struct Table {
    columns: &'static [(&'static str, TableColumn)],
    html: String,
}

impl Table {
    /// A table without rows. `id` and `caption` are HTML.
    pub(super) fn new(id: &str, caption: &str, columns: &'static [(&'static str, TableColumn)]) -> Self {
        let mut html = format!(
            "<div class=\"scroll\" id=\"{id}\" tabindex=\"0\" role=\"group\" aria-label=\"{caption}\">\
             <table role=\"table\"><caption>{caption}</caption><thead role=\"rowgroup\"><tr role=\"row\">"
        );
        for (name, column) in columns {
            let class = if *column == TableColumn::Number { " class=\"number\"" } else { "" };
            let _ = write!(html, "<th role=\"columnheader\" scope=\"col\"{class}>{name}</th>");
        }
        html.push_str("</tr></thead><tbody role=\"rowgroup\">");
        Self { columns, html }
    }

    /// Adds a row of cells, which are HTML.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.html.push_str("<tr role=\"row\">");
        for ((name, column), cell) in self.columns.iter().zip(cells) {
            let class = column.class();
            let _ = match column {
                TableColumn::Header => {
                    write!(self.html, "<th role=\"rowheader\" scope=\"row\" class=\"{class}\">{cell}</th>")
                }
                _ => write!(
                    self.html,
                    "<td role=\"cell\" class=\"{class}\" data-label=\"{name}\"><span>{cell}</span></td>"
                ),
            };
        }
        self.html.push_str("</tr>");
    }

    pub(super) fn finish(mut self) -> String {
        self.html.push_str("</tbody></table></div>");
        self.html
    }
}

/// A bar that is filled to `percent`; beside it stands the number that it shows.
pub(super) fn meter(percent: u64) -> String {
    format!(
        "<svg class=\"meter\" viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
         <rect class=\"track\" width=\"100\" height=\"8\"/><rect class=\"fill\" width=\"{}\" height=\"8\"/></svg>",
        percent.min(100)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_name_their_columns() {
        const COLUMNS: &[(&str, TableColumn)] = &[("Who", TableColumn::Header), ("Calls", TableColumn::Number)];
        let mut table = Table::new("t", "All", COLUMNS);
        table.row(["bi".to_owned(), "7".to_owned()]);
        let html = table.finish();
        assert!(html.contains("<th role=\"columnheader\" scope=\"col\" class=\"number\">Calls</th>"), "{html}");
        let row = "<th role=\"rowheader\" scope=\"row\" class=\"name\">bi</th>\
                   <td role=\"cell\" class=\"number\" data-label=\"Calls\"><span>7</span></td></tr></tbody>";
        assert!(html.contains(row), "{html}");
    }
}
