//! Other people's text, made harmless: what models and datasets wrote can neither leave its place
//! on the page nor hide what it is.

/// The most characters of a name.
const NAME: usize = 60;

/// Text as the content of an element: line breaks and tabs stay, other control characters are shown
/// as pictures, and what is invisible or turns the direction of reading as its code point.
pub(super) fn text(foreign: &str) -> String {
    escape(foreign, |code| format!("<span class=\"odd\">U+{code:04X}</span>"))
}

/// Text where no elements can be: in attributes, and in the titles of figures.
pub(super) fn plain(foreign: &str) -> String {
    escape(foreign, |code| format!("⟨U+{code:04X}⟩"))
}

/// A name: plain, and no longer than 60 characters.
pub(super) fn name(foreign: &str) -> String {
    plain(&shortened(foreign))
}

/// A name of no more than 60 characters, not yet escaped.
pub(super) fn shortened(foreign: &str) -> String {
    let (kept, rest) = split_at_chars(foreign, NAME);
    if rest == 0 { kept.to_owned() } else { format!("{kept}…") }
}

/// The first `limit` characters as [`text`], and how many were left out.
pub(super) fn clamped(foreign: &str, limit: usize) -> String {
    let (kept, rest) = split_at_chars(foreign, limit);
    if rest == 0 {
        return text(kept);
    }

    let more = crate::numeral::counted(rest, "character");
    format!("{}<span class=\"more\"> … {more} more in report.json</span>", text(kept))
}

/// The first `limit` characters, and how many there are after them.
fn split_at_chars(foreign: &str, limit: usize) -> (&str, usize) {
    let end = foreign.char_indices().nth(limit).map_or(foreign.len(), |(index, _)| index);
    (&foreign[..end], foreign[end..].chars().count())
}

fn escape(foreign: &str, code_point: impl Fn(u32) -> String) -> String {
    let mut escaped = String::with_capacity(foreign.len() + foreign.len() / 8);
    let mut characters = foreign.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(character),
            '\r' if characters.peek() == Some(&'\n') => {}
            '\0'..='\x1f' => escaped.extend(char::from_u32(0x2400 + character as u32)),
            '\x7f' => escaped.push('␡'),
            odd if is_hidden(odd) => escaped.push_str(&code_point(odd as u32)),
            harmless => escaped.push(harmless),
        }
    }
    escaped
}

/// Whether a character is unseen and could mislead: C1 controls, marks and overrides of direction,
/// spaces without width, line separators, tags, interlinear annotation, noncharacters. Joiners
/// stay, for scripts and emoji need them.
fn is_hidden(character: char) -> bool {
    matches!(
        character as u32,
        0x80..=0x9f | 0xad | 0x61c | 0x180e | 0x200b | 0x200e | 0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfeff
            | 0xfff9..=0xfffb | 0xfffe | 0xffff | 0xe0000..=0xe007f
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn markup_is_text_and_what_hides_is_seen() {
        assert_eq!(text("</script><img src=x onerror='a&b'>\"]]>"), {
            "&lt;/script&gt;&lt;img src=x onerror=&#39;a&amp;b&#39;&gt;&quot;]]&gt;"
        });
        assert_eq!(text("a\0b\x1b[31m\x7f\r\nc\rd"), "a␀b␛[31m␡\nc␍d");
        assert_eq!(text("x\u{202e}y"), "x<span class=\"odd\">U+202E</span>y");
        assert_eq!(plain("x\u{2066}y"), "x⟨U+2066⟩y");
        assert_eq!(text("👩\u{200d}💻"), "👩\u{200d}💻");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let long = "é".repeat(100_000);
        let cut = clamped(&long, 2_000);
        assert!(
            cut.starts_with(&"é".repeat(2_000))
                && cut.ends_with("98,000 characters more in report.json</span>")
        );
        assert_eq!(clamped("é", 1), "é");
        assert_eq!(name(&"n".repeat(61)), "n".repeat(60) + "…");
    }

    proptest! {
        #[test]
        fn nothing_can_open_or_close_anything(foreign in "\\PC*|[\\x00-\\x9f<>&\"'\u{202a}-\u{202e}]*") {
            for escaped in [plain(&foreign), name(&foreign), text(&foreign).replace("<span class=\"odd\">", "").replace("</span>", "")] {
                prop_assert!(!escaped.contains(['<', '>', '"', '\'', '\0', '\u{202e}', '\u{1b}', '\u{9b}']), "{escaped}");
                for after in escaped.split('&').skip(1) {
                    let entity = after.split(';').next().unwrap();
                    prop_assert!(["amp", "lt", "gt", "quot", "#39"].contains(&entity), "{escaped}");
                }
            }
        }
    }
}
