//! One spelling for the many ways to write digits, signs, spaces and simple LaTeX, before numbers
//! are read.
//!
//! Unicode's NFKC would be wrong here: it turns `10²` into `102` and `1½` into `11⁄2`.

/// Zeroes of Unicode's decimal digits (general category Nd, Unicode 16); each is followed by its
/// one to nine.
const ZEROES: [u32; 44] = [
    0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0CE6, 0x0D66,
    0x0DE6, 0x0E50, 0x0ED0, 0x0F20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90,
    0x1B50, 0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10,
    0x104A0, 0x11066, 0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6, 0x1E950,
];

/// What may be written between the digits of one number to group them, beside `,` `.` `'` and `_`.
pub(crate) const THIN_SPACE: char = '\u{A0}';

/// The longest argument of `\frac` that is looked at, in bytes: keeps a text full of unclosed
/// fractions linear.
const MAX_ARGUMENT: usize = 512;

/// `text` with ASCII digits and signs, plain fractions, `^` before exponents, and without markup.
/// Linear.
pub(crate) fn canonical(text: &str) -> String {
    let mut canon = Canon { out: String::with_capacity(text.len()), raised: false };
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = match c {
            '\\' => canon.command(after),
            '*' | '_' if after.starts_with(c) => canon.emphasis(&after[1..]),
            _ => {
                canon.glyph(c);
                after
            }
        };
    }
    canon.out
}

struct Canon {
    out: String,
    /// Whether the last glyph was a superscript.
    raised: bool,
}

impl Canon {
    fn glyph(&mut self, c: char) {
        let raised = std::mem::replace(&mut self.raised, false);
        match c {
            // Word joiners, soft hyphens, direction marks; braces and code marks.
            '\u{200B}'..='\u{200F}'
            | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{2069}'
            | '\u{FEFF}'
            | '\u{AD}'
            | '{'
            | '}'
            | '`' => {}
            '−' | '‐' | '‑' | '‒' | '–' | '﹣' => self.out.push('-'),
            '⋅' | '·' | '∗' => self.out.push('×'),
            '⁄' | '∕' => self.out.push('/'),
            '٫' => self.out.push('.'),
            '٬' => self.out.push(','),
            '٪' | '﹪' => self.out.push('%'),
            '’' | '‘' => self.out.push('\''),
            '\u{2009}' | '\u{202F}' => self.out.push(THIN_SPACE),
            // Full-width forms of ASCII, digits included.
            '！'..='～' => self.out.extend(char::from_u32(c as u32 - 0xFEE0)),
            '₀'..='₉' => self.out.extend(['_', ascii(c as u32 - 0x2080)]),
            _ => self.rarer(c, raised),
        }
    }

    fn rarer(&mut self, c: char, raised: bool) {
        if c.is_ascii() {
            self.out.push(c);
        } else if let Some(exponent) = superscript(c) {
            self.raised = true;
            self.out.extend((!raised).then_some('^'));
            self.out.push(exponent);
        } else if let Some(fraction) = vulgar_fraction(c) {
            self.fraction(fraction.0, fraction.1);
        } else {
            self.out.push(digit(c).unwrap_or(c));
        }
    }

    /// A fraction, set off from a whole number before it.
    fn fraction(&mut self, over: &str, under: &str) {
        self.out.extend(self.out.ends_with(|c: char| c.is_ascii_digit()).then_some(' '));
        self.out.extend([over, "/", under]);
    }

    /// `**` or `__`: markup, but a power between two digits.
    fn emphasis<'t>(&mut self, after: &'t str) -> &'t str {
        let digit = |c: char| c.is_ascii_digit();
        self.out.extend((self.out.ends_with(digit) && after.starts_with(digit)).then_some('^'));
        after
    }

    /// What follows a backslash; returns what follows the command.
    fn command<'t>(&mut self, after: &'t str) -> &'t str {
        let name = &after[..after.bytes().take_while(u8::is_ascii_alphabetic).count()];
        let rest = &after[name.len()..];
        match name {
            "" => return self.escape(after),
            "frac" | "dfrac" | "tfrac" | "cfrac" => return self.latex_fraction(rest),
            "times" | "cdot" | "ast" => self.out.push('×'),
            "div" => self.out.push('÷'),
            "le" | "leq" => self.out.push('≤'),
            "ge" | "geq" => self.out.push('≥'),
            "ne" | "neq" => self.out.push('≠'),
            "lt" => self.out.push('<'),
            "gt" => self.out.push('>'),
            "approx" => self.out.push('≈'),
            "to" | "rightarrow" | "Rightarrow" => self.out.push('→'),
            "circ" | "degree" => self.degree(),
            "quad" | "qquad" => self.out.push(' '),
            "text" | "mathrm" | "textrm" | "mathbf" | "textbf" | "bf" | "rm" | "textit"
            | "mathit" | "mbox" | "operatorname" | "left" | "right" | "boxed" | "fbox"
            | "displaystyle" => {}
            _ => self.out.extend(["\\", name]),
        }
        rest
    }

    fn escape<'t>(&mut self, after: &'t str) -> &'t str {
        let Some(c) = after.chars().next() else { return after };
        match c {
            ',' | ';' | ':' | ' ' => self.out.push(THIN_SPACE),
            '!' | '(' | ')' | '[' | ']' | '{' | '}' => {}
            '\n' | '\\' => self.out.push('\n'),
            _ => self.out.push(c),
        }
        &after[c.len_utf8()..]
    }

    fn latex_fraction<'t>(&mut self, after: &'t str) -> &'t str {
        let parts = argument(after)
            .and_then(|(over, rest)| argument(rest).map(|(under, rest)| (over, under, rest)));
        if let Some((over, under, rest)) = parts {
            self.fraction(over, under);
            rest
        } else {
            self.out.push_str("\\frac");
            after
        }
    }

    fn degree(&mut self) {
        if self.out.ends_with('^') {
            self.out.pop();
        }
        self.out.push('°');
    }
}

/// A LaTeX argument that is nothing but ASCII digits: `{12}`, or a single bare digit.
fn argument(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches(' ');
    if let Some(inner) = text.strip_prefix('{') {
        let end = inner.bytes().take(MAX_ARGUMENT).position(|byte| byte == b'}')?;
        let digits = inner[..end].trim();
        let valid = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        return valid.then_some((digits, &inner[end + 1..]));
    }
    text.starts_with(|c: char| c.is_ascii_digit()).then(|| text.split_at(1))
}

/// The ASCII digit that a digit of another script stands for.
pub(crate) fn digit(c: char) -> Option<char> {
    let zero = ZEROES.iter().find(|&&zero| (zero..zero + 10).contains(&(c as u32)));
    zero.map(|zero| ascii(c as u32 - zero))
}

fn ascii(digit: u32) -> char {
    char::from_digit(digit, 10).unwrap_or('0')
}

/// What a raised sign or digit is on the line.
pub(crate) fn superscript(c: char) -> Option<char> {
    let digits = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    match c {
        '⁻' => Some('-'),
        '⁺' => Some('+'),
        _ => digits.iter().position(|&digit| digit == c).map(|digit| ascii(digit as u32)),
    }
}

/// The terms of a fraction that is one character.
pub(crate) fn vulgar_fraction(c: char) -> Option<(&'static str, &'static str)> {
    Some(match c {
        '½' => ("1", "2"),
        '⅓' => ("1", "3"),
        '⅔' => ("2", "3"),
        '¼' => ("1", "4"),
        '¾' => ("3", "4"),
        '⅕' => ("1", "5"),
        '⅖' => ("2", "5"),
        '⅗' => ("3", "5"),
        '⅘' => ("4", "5"),
        '⅙' => ("1", "6"),
        '⅚' => ("5", "6"),
        '⅐' => ("1", "7"),
        '⅛' => ("1", "8"),
        '⅜' => ("3", "8"),
        '⅝' => ("5", "8"),
        '⅞' => ("7", "8"),
        '⅑' => ("1", "9"),
        '⅒' => ("1", "10"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn every_script_has_one_spelling() {
        let cases = [
            ("٤٢", "42"),
            ("४२", "42"),
            ("４２", "42"),
            ("𝟒𝟐", "42"),
            ("−5", "-5"),
            ("½", "1/2"),
            ("1½", "1 1/2"),
            ("10²³", "10^23"),
            ("10⁻³", "10^-3"),
            ("CO₂", "CO_2"),
            (r"1\frac{1}{2}", "1 1/2"),
            (r"\dfrac{ 3 }{4}", "3/4"),
            (r"\frac12", "1/2"),
            (r"\frac{x}{2}", r"\fracx2"),
            (r"12\text{ apples}", "12 apples"),
            (r"1{,}000", "1,000"),
            (r"90^\circ", "90°"),
            (r"90^{\circ}", "90°"),
            (r"\$12\%", "$12%"),
            ("**5**", "5"),
            ("2**3", "2^3"),
            (r"3\times4", "3×4"),
            ("\u{200F}5", "5"),
            ("\\", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }
}
