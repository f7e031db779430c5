//! Numbers as a reader of the report sees them. Minus is `−`, not a hyphen; what is not finite is a
//! dash.

/// A share as per cent: `58.4%`.
pub(crate) fn percent(share: f64) -> String {
    finite(share, |share| format!("{}%", fixed(100.0 * share, 1)))
}

/// A difference of shares, in percentage points with a sign: `+2.1`.
pub(crate) fn points(difference: f64) -> String {
    finite(difference, |difference| signed(100.0 * difference))
}

/// An interval of shares, in per cent: `[52.2, 64.3]`.
pub(crate) fn interval(low: f64, high: f64) -> String {
    format!("[{}, {}]", finite(100.0 * low, |v| fixed(v, 1)), finite(100.0 * high, |v| fixed(v, 1)))
}

/// An interval of differences, in percentage points: `[−0.4, +4.7]`.
pub(crate) fn points_interval(low: f64, high: f64) -> String {
    format!("[{}, {}]", points(low), points(high))
}

/// A probability, as in `p = 0.113` or `p < 0.001`, without the letter: `= 0.113`.
pub(crate) fn probability(p: f64) -> String {
    match p {
        p if !p.is_finite() => "unknown".to_owned(),
        p if p < 0.001 => "< 0.001".to_owned(),
        p => format!("= {p:.3}"),
    }
}

/// A length of time: `8.2 s`, `330 s`, `12 min 05 s`, `3 h 20 min`.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.round();
    match seconds {
        s if !s.is_finite() => "–".to_owned(),
        s if s.abs() < 10.0 => format!("{} s", fixed(s, 1)),
        s if s < 600.0 => format!("{} s", fixed(s, 0)),
        _ if whole < 7200.0 => format!("{} min {:02} s", (whole / 60.0).floor(), whole % 60.0),
        _ => {
            let minutes = (seconds / 60.0).round();
            format!("{} h {:02} min", (minutes / 60.0).floor(), minutes % 60.0)
        }
    }
}

/// A whole number in groups of three: `12,500`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// So many decimals.
pub(crate) fn fixed(value: f64, decimals: usize) -> String {
    finite(value, |value| {
        let text = format!("{value:.decimals$}");
        let is_zero = !text.bytes().any(|byte| (b'1'..=b'9').contains(&byte));
        if is_zero { text.trim_start_matches('-').to_owned() } else { text.replace('-', "−") }
    })
}

/// `one question`, `3 questions`: the number with its noun.
pub(crate) fn counted(number: usize, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", count(number as u64))
}

fn signed(value: f64) -> String {
    let text = fixed(value, 1);
    let is_zero = text == "0.0";
    if is_zero || text.starts_with('−') { text } else { format!("+{text}") }
}

fn finite(value: f64, form: impl Fn(f64) -> String) -> String {
    if value.is_finite() { form(value) } else { "–".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_form() {
        assert_eq!((percent(0.5837).as_str(), percent(f64::NAN).as_str()), ("58.4%", "–"));
        assert_eq!(
            [points(0.0214), points(-0.004), points(-0.0001), points(0.0)],
            ["+2.1", "−0.4", "0.0", "0.0"]
        );
        assert_eq!(points_interval(-0.004, 0.047), "[−0.4, +4.7]");
        assert_eq!(
            [probability(0.1134), probability(0.0009), probability(1.0)],
            ["= 0.113", "< 0.001", "= 1.000"]
        );
        let times = [8.24, 330.4, 599.7, 725.0, 3599.6, 7200.0, 12_000.0].map(duration);
        let expected =
            ["8.2 s", "330 s", "600 s", "12 min 05 s", "60 min 00 s", "2 h 00 min", "3 h 20 min"];
        assert_eq!(times, expected);
        assert_eq!(
            [count(0), count(999), count(12_500), count(1_234_567)],
            ["0", "999", "12,500", "1,234,567"]
        );
        assert_eq!(
            [counted(1, "question"), counted(1500, "question")],
            ["1 question", "1,500 questions"]
        );
    }
}
