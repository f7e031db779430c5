//! Units, so that `5 cm` is not `5 m`.

use crate::number::quantity::is_scale_like;

/// Symbols, each with its names in the singular.
const UNITS: [(&str, &[&str]); 44] = [
    ("mm", &["mm", "millimeter", "millimetre"]),
    ("cm", &["cm", "centimeter", "centimetre"]),
    ("dm", &["dm", "decimeter", "decimetre"]),
    ("m", &["m", "meter", "metre"]),
    ("km", &["km", "kilometer", "kilometre"]),
    ("in", &["in", "inch", "inche"]),
    ("ft", &["ft", "foot", "feet"]),
    ("yd", &["yd", "yard"]),
    ("mi", &["mi", "mile"]),
    ("mg", &["mg", "milligram"]),
    ("g", &["g", "gm", "gram"]),
    ("kg", &["kg", "kilogram"]),
    ("t", &["ton", "tonne"]),
    ("oz", &["oz", "ounce"]),
    ("lb", &["lb", "pound"]),
    ("s", &["s", "sec", "second"]),
    ("min", &["min", "minute"]),
    ("h", &["h", "hr", "hour"]),
    ("d", &["day"]),
    ("wk", &["week"]),
    ("mo", &["month"]),
    ("yr", &["yr", "year"]),
    ("ml", &["ml", "mL", "milliliter", "millilitre"]),
    ("l", &["l", "L", "liter", "litre"]),
    ("gal", &["gal", "gallon"]),
    ("mi/h", &["mph"]),
    ("km/h", &["kmh", "kmph", "kph"]),
    ("N", &["N", "newton"]),
    ("J", &["J", "joule"]),
    ("kJ", &["kJ", "kilojoule"]),
    ("W", &["W", "watt"]),
    ("kW", &["kW", "kilowatt"]),
    ("V", &["V", "volt"]),
    ("A", &["A", "amp", "ampere"]),
    ("Ω", &["ohm", "Ω"]),
    ("Hz", &["Hz", "hertz"]),
    ("Pa", &["Pa", "pascal"]),
    ("K", &["K", "kelvin"]),
    ("mol", &["mol", "mole"]),
    ("°", &["degree", "deg", "°"]),
    ("rad", &["rad", "radian"]),
    ("$", &["dollar", "usd", "USD", "$"]),
    ("¢", &["cent", "¢"]),
    ("€", &["euro", "EUR", "€"]),
];

/// Words behind a number that multiply it, and by what.
const SCALES: [(&str, u64); 6] = [
    ("dozen", 12),
    ("hundred", 100),
    ("thousand", 1000),
    ("million", 1_000_000),
    ("billion", 1_000_000_000),
    ("trillion", 1_000_000_000_000),
];
/// Words behind a number after which it is no answer, or another one: `5 is wrong`, `5 at most`.
const STATEMENTS: [&str; 8] =
    ["not", "never", "wrong", "false", "incorrect", "least", "most", "than"];
/// What a number's base is written as.
const BASE: &str = "base ";

/// Whether both are known units, and different ones. A word that is no unit (`apples`) contradicts
/// nothing; another base contradicts, as does a word that may multiply by a factor that is not
/// settled (`5 k`).
pub(crate) fn contradict(left: &str, right: &str) -> bool {
    let bases = left.starts_with(BASE) && right.starts_with(BASE);
    let scales = is_scale_like(left) || is_scale_like(right);
    let known = || canonical(left).zip(canonical(right)).is_some_and(|(left, right)| left != right);
    if bases || scales { left != right } else { known() }
}

/// What a unit multiplies its number by, and what is left of it: `million dollars`.
pub(crate) fn scale(unit: &str) -> Option<(u64, &str)> {
    let unit = unit.trim();
    let (word, rest) = unit.split_once(char::is_whitespace).unwrap_or((unit, ""));
    let factor = SCALES.iter().find(|(name, _)| word.eq_ignore_ascii_case(name))?.1;
    Some((factor, rest.trim()))
}

/// Whether words behind a number say something about it, rather than what it counts.
pub(crate) fn is_statement(unit: &str) -> bool {
    unit.split(|c: char| !c.is_alphabetic())
        .any(|word| STATEMENTS.iter().any(|known| word.eq_ignore_ascii_case(known)))
}

/// Whether both are known units, and the same.
pub(crate) fn same(left: &str, right: &str) -> bool {
    canonical(left).zip(canonical(right)).is_some_and(|(left, right)| left == right)
}

/// Whether letters after a number are a unit, not a product of variables.
pub(crate) fn is_unit(word: &str) -> bool {
    word.len() > 1 && symbol(word).is_some()
}

/// The unit in one spelling: `cm^2` for `square centimeters`. `None` where it has a part that is
/// not known.
fn canonical(unit: &str) -> Option<String> {
    let (mut spelt, mut power) = (String::new(), "");
    for part in parts(unit) {
        match part.to_ascii_lowercase().as_str() {
            "square" | "sq" | "squared" => power = "2",
            "cubic" | "cu" | "cubed" => power = "3",
            "per" | "/" => spelt.push('/'),
            _ if part.bytes().all(|byte| byte.is_ascii_digit()) => {
                power = if part == "1" { "" } else { part }
            }
            _ => {
                spelt.push_str(std::mem::take(&mut power));
                spelt.push_str(symbol(part)?);
                continue;
            }
        }
        // A power before its unit waits for it: `square cm`; one behind it is written at once:
        // `cm squared`.
        if spelt.ends_with(char::is_alphabetic) {
            spelt.push_str(std::mem::take(&mut power));
        }
    }
    // `cm2` and `2cm` are one spelling.
    let mut letters: Vec<char> = spelt.chars().filter(|c| !c.is_ascii_digit()).collect();
    letters.extend(spelt.chars().filter(char::is_ascii_digit));
    (!letters.is_empty()).then(|| letters.into_iter().collect())
}

/// Words, whole numbers and strokes.
fn parts(unit: &str) -> Vec<&str> {
    let kind = |c: char| {
        if c.is_ascii_digit() {
            1
        } else {
            2 * i32::from(c.is_alphabetic() || "°$€¢".contains(c))
        }
    };
    let mut parts = Vec::new();
    let mut start = 0;
    let mut before = 0;
    for (at, c) in unit.char_indices().chain([(unit.len(), ' ')]) {
        let now = if c == '/' { 3 } else { kind(c) };
        if now != before || now == 3 {
            if before != 0 {
                parts.push(&unit[start..at]);
            }
            start = at;
        }
        before = now;
    }
    parts
}

fn symbol(word: &str) -> Option<&'static str> {
    let find = |name: &str| {
        UNITS.iter().find(|(_, names)| names.contains(&name)).map(|(symbol, _)| *symbol)
    };
    let lower = word.to_ascii_lowercase();
    let singular = lower.strip_suffix('s').filter(|stem| stem.len() > 1);
    find(word)
        .or_else(|| (word.len() > 2).then(|| find(&lower)).flatten())
        .or_else(|| singular.and_then(find))
}

#[cfg(test)]
mod tests {
    use super::{contradict, is_unit};

    #[test]
    fn units_contradict_or_not() {
        let cases = [
            ("cm", "m", true),
            ("cm", "centimeters", false),
            ("cm^2", "square centimeters", false),
            ("cm^2", "sq cm", false),
            ("cm^2", "cm^3", true),
            ("cm^2", "cm", true),
            ("m/s", "meters per second", false),
            ("m/s", "km/h", true),
            ("m/s^2", "m/s", true),
            ("hours", "hr", false),
            ("hours", "minutes", true),
            ("apples", "pears", false),
            ("apples", "cm", false),
            ("", "cm", false),
            ("inches", "in", false),
            ("feet", "ft", false),
            ("degrees", "°", false),
            ("dollars", "$", false),
            ("cents", "$", true),
        ];
        for (left, right, expected) in cases {
            assert_eq!(contradict(left, right), expected, "{left} {right}");
            assert_eq!(contradict(right, left), expected, "{right} {left}");
        }
        assert!(
            is_unit("cm") && is_unit("mph") && !is_unit("m") && !is_unit("xy") && !is_unit("ab")
        );
    }
}
