//! Which texts are the same number.

use posttrain_answer::number::{Fractions, Number, Numeric, Percent, Separators, Units};

#[test]
fn same_and_different_numbers() {
    // (response, reference, same)
    let cases = [
        ("5", "5", true),
        ("5.", "5", true),
        ("5.0", "5", true),
        ("05", "5", true),
        (".5", "0.5", true),
        ("-5", "-5", true),
        ("−5", "-5", true),
        ("–5", "-5", true),
        ("- 5", "-5", true),
        ("+5", "5", true),
        ("-0", "0", true),
        ("-5", "5", false),
        ("50", "5", false),
        ("15", "5", false),
        ("5 5", "5", false),
        ("7 8 9 10", "9", false),
        ("5, 6", "5", false),
        ("(5, 6)", "6", false),
        ("1,000", "1000", true),
        ("1,234,567.5", "1234567.5", true),
        ("1 000", "1000", false),
        ("1\u{a0}000", "1000", true),
        ("1\u{202f}000\u{202f}000", "1000000", true),
        ("1'000", "1000", true),
        ("1_000", "1000", true),
        ("1.000", "1", true),
        ("1.000", "1000", false),
        ("1,5", "1.5", false),
        ("10,00", "1000", false),
        ("1,0000", "10000", false),
        (",000", "0", false),
        ("1,000'000", "1000000", false),
        ("1.2.3", "1.2", false),
        ("3/4", "0.75", true),
        ("0.75", "3/4", true),
        ("¾", "0.75", true),
        ("½", "1/2", true),
        ("1½", "1.5", true),
        ("1 1/2", "1.5", true),
        ("1 3/2", "2.5", false),
        ("-1 1/2", "-1.5", true),
        ("3/2", "1 1/2", true),
        ("3⁄4", "0.75", true),
        ("6/8", "0.75", false),
        ("6/8", "6/8", true),
        ("3/4", "6/8", true),
        ("12/4", "3", false),
        ("3/1", "3", false),
        ("1/0", "0", false),
        ("3 / 4", "0.75", false),
        ("0.333", "1/3", false),
        (r"\frac{3}{4}", "0.75", true),
        (r"-\dfrac{3}{4}", "-0.75", true),
        (r"1\tfrac{1}{2}", "1.5", true),
        (r"$\frac{3}{4}$", "0.75", true),
        ("75%", "0.75", true),
        ("75%", "75", true),
        ("75", "75%", true),
        ("0.75", "75%", true),
        ("75%", "75%", true),
        ("75 %", "75%", true),
        ("75 percent", "75%", true),
        ("75 per cent", "75%", true),
        (r"75\%", "75%", true),
        ("0.75%", "0.75", true),
        ("75%", "7500", false),
        ("7500%", "75", true),
        ("$12", "12", true),
        ("-$12", "-12", true),
        ("$-12", "-12", true),
        ("12 $", "12", true),
        ("12€", "12", true),
        ("€12", "$12", false),
        ("£1,200.50", "1200.5", true),
        ("$12$", "12", true),
        (r"\$12", "$12", true),
        ("12 apples", "12", true),
        ("12 apples", "12 apple", true),
        ("12 kg", "12 kg", true),
        ("12kg", "12 kg", true),
        ("12", "12 kg", true),
        ("12 g", "12 kg", false),
        ("9.8 m/s^2", "9.8", true),
        ("9.8 m/s²", "9.8 m/s^2", true),
        (r"9.8\,\text{m/s}^2", "9.8", true),
        (r"90^\circ", "90", true),
        ("300K", "300", true),
        ("5th", "5", true),
        ("5x", "5", false),
        ("5k", "5", false),
        ("5 M", "5", false),
        ("5 M", "5 M", true),
        ("2 dozen", "2", false),
        ("12 million", "12", false),
        ("12 million", "12000000", true),
        ("1.5 billion", "1500000000", true),
        ("5 hundred", "500", true),
        ("12 is wrong", "12", false),
        ("12 or 13", "12", false),
        ("5!", "5", true),
        ("x = 5", "5", true),
        ("x=-5", "-5", true),
        ("3 + 9 = 12", "12", true),
        ("12 = 3 + 9", "12", false),
        ("x >= 5", "5", false),
        ("> 5", "5", false),
        ("3 + 9", "12", false),
        ("**5**", "5", true),
        ("`5`", "5", true),
        ("\"5\"", "5", true),
        ("(5)", "5", true),
        ("[5]", "5", true),
        ("_5_", "5", true),
        ("1e3", "1000", true),
        ("1.5E+3", "1500", true),
        ("1.5e-3", "0.0015", true),
        ("1.5 × 10^3", "1500", true),
        ("1.5×10³", "1500", true),
        ("1.5 x 10^-3", "0.0015", true),
        (r"1.5 \times 10^{3}", "1500", true),
        ("6.022·10²³", "6.022e23", true),
        ("10^3", "1000", false),
        ("2^3", "8", false),
        ("10²", "102", false),
        ("1e", "1", false),
        ("1e5x", "100000", false),
        ("٤٢", "42", true),
        ("۴۲", "42", true),
        ("४२", "42", true),
        ("๔๒", "42", true),
        ("４２", "42", true),
        ("－５", "-5", true),
        ("٣٫٥", "3.5", true),
        ("١٬٠٠٠", "1000", true),
        ("42个", "42", true),
        ("five", "5", false),
        ("", "5", false),
        ("-", "5", false),
        ("%", "5", false),
        ("$", "5", false),
        ("NaN", "5", false),
        ("inf", "5", false),
        ("0x10", "16", false),
        ("1e999999999", "1", false),
        ("1e-999999999", "0", false),
    ];
    let config = Numeric::default();
    for (response, reference, same) in cases {
        assert_eq!(config.matches(response, reference), same, "{response} = {reference}");
    }
}

#[test]
fn commas_for_decimals() {
    let config = Numeric { separators: Separators::Comma, ..Numeric::default() };
    let cases = [
        ("1,5", "3/2", true),
        ("1.000", "1000", true),
        ("1.234,5", "1.234,50", true),
        ("1.5", "3/2", false),
    ];
    for (response, reference, same) in cases {
        assert_eq!(config.matches(response, reference), same, "{response} = {reference}");
    }
}

#[test]
fn tolerances_include_their_bound_and_the_wider_holds() {
    let config =
        Numeric { absolute_tolerance: 0.5, relative_tolerance: 0.25, ..Numeric::default() };
    let cases = [
        ("1.5", "1", true),
        ("1.51", "1", false),
        ("125", "100", true),
        ("126", "100", false),
        ("-125", "-100", true),
    ];
    for (response, reference, same) in cases {
        assert_eq!(config.matches(response, reference), same, "{response} = {reference}");
    }
}

#[test]
fn notation_can_be_asked_for() {
    let fraction = |fractions| Numeric { fractions, ..Numeric::default() };
    assert!(!fraction(Fractions::AsReference).matches("3/4", "0.75"));
    assert!(fraction(Fractions::AsReference).matches("3/4", "6/8"));
    assert!(fraction(Fractions::Any).matches("12/4", "3"));
    let percent = |percent| Numeric { percent, ..Numeric::default() };
    assert!(!percent(Percent::Hundredth).matches("75%", "75"));
    assert!(percent(Percent::Hundredth).matches("75%", "0.75"));
    assert!(!percent(Percent::AsReference).matches("75%", "0.75"));
    let required = Numeric { units: Units::Required, ..Numeric::default() };
    assert!(
        required.matches("12 kg", "12 kg")
            && !required.matches("12", "12 kg")
            && !required.matches("12 kg", "12")
    );
}

#[test]
fn numbers_are_exact_and_bounded() {
    let number = |text: &str| Number::parse(text, Separators::Point);
    assert_ne!(
        number("9007199254740993"),
        number("9007199254740992"),
        "beyond what a 64-bit float tells apart"
    );
    assert!(number("0.1").zip(number("0.3")).is_some_and(|(tenth, _)| tenth.to_string() == "1/10"));
    assert!(number(&"9".repeat(400)).is_some() && number(&"9".repeat(401)).is_none());
    assert!(number("1e400").is_some() && number("1e401").is_none() && number("1e-401").is_none());
    assert!(number("12 apples").is_none() && number("$12").is_none());
}
