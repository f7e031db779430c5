//! Tables that scroll in a box of their own.

use super::escape;
use crate::numeral::{interval, percent};
use posttrain_statistics::Share;

/// A table: caption, heads of the columns, rows whose first cell is their head. All but the caption
/// is markup. A cell that begins with `<td` brings its own.
pub(super) fn table(caption: &str, heads: &[String], rows: &[Vec<String>]) -> String {
    let caption = escape::plain(caption);
    let head: String = heads.iter().map(|head| format!("<th scope=\"col\">{head}</th>")).collect();
    let body: String = rows.iter().map(|row| format!("<tr>{}</tr>", cells(row))).collect();
    format!(
        "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{caption}\"><table><caption><span>{caption}</span></caption>\
         <thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n"
    )
}

fn cells(row: &[String]) -> String {
    row.iter()
        .enumerate()
        .map(|(index, cell)| match index {
            0 => format!("<th scope=\"row\">{cell}</th>"),
            _ if cell.starts_with("<td") => cell.clone(),
            _ => format!("<td>{cell}</td>"),
        })
        .collect()
}

/// Heads of columns that need no escaping.
pub(super) fn heads(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| escape::plain(word)).collect()
}

/// An accuracy above its interval; a dash where there is none.
pub(super) fn accuracy(value: Option<&Share>) -> String {
    match value.filter(|value| value.n > 0) {
        Some(value) => {
            let range = interval(value.low, value.high);
            format!("{}<span class=\"range\">{range}</span>", percent(value.share))
        }
        None => dash(),
    }
}

/// A cell shaded by a share from 0 to 1.
pub(super) fn heat(share: f64, content: &str, class: &str) -> String {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    format!("<td class=\"heat {class}\" style=\"--v:{share:.3}\">{content}</td>")
}

/// What stands for nothing.
pub(super) fn dash() -> String {
    "<span aria-label=\"none\">–</span>".to_owned()
}

/// A number, or what stands for none.
pub(super) fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(dash)
}
