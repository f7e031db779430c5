//! What the mathematics verifier accepts, and what earns nothing.

// Functions outside #[test] unwrap, too.
#![allow(clippy::unwrap_used)]

use posttrain_answer::math::Math;
use posttrain_answer::number::{Percent, Separators, Units};
use posttrain_answer::{AnswerError, Verdict};
use proptest::prelude::*;

/// `1`, `0`, `undecided` or what is wrong with the reference.
fn verdict_by(math: &Math, reference: &str, response: &str) -> &'static str {
    match math.compare(reference, response).map(|comparison| comparison.verdict) {
        Ok(Verdict::Same) => "1",
        Ok(Verdict::Undecided(_)) => "undecided",
        Ok(_) => "0",
        Err(AnswerError::EmptyReference) => "empty_reference",
        Err(_) => "bad_reference",
    }
}

fn verdict(reference: &str, response: &str) -> &'static str {
    verdict_by(&Math::default(), reference, response)
}

fn boxed(reference: &str, answer: &str) -> bool {
    verdict(reference, &format!("\\boxed{{{answer}}}")) == "1"
}

#[test]
fn the_same_answer_in_many_forms() {
    let same: &[(&str, &[&str])] = &[
        (
            "1/2",
            &[
                "0.5",
                r"\frac12",
                r"\frac{2}{4}",
                "50%",
                r"2^{-1}",
                r"{1 \over 2}",
                "½",
                r"\cos\frac{\pi}{3}",
            ],
        ),
        (r"0.1\overline{6}", &[r"\frac16", "1/6", "0.16666666667"]),
        ("1,234,567", &["1234567", r"1{,}234{,}567", r"1\,234\,567"]),
        (
            r"2\sqrt{3}",
            &[r"\sqrt{12}", r"\frac{6}{\sqrt 3}", "sqrt(12)", "2*sqrt(3)", "2√3", "3.464101615"],
        ),
        (r"\sqrt[3]{-8}", &["-2", r"-\sqrt[3]{8}"]),
        (r"\frac{1}{\sqrt 3 - \sqrt 2}", &[r"\sqrt 2 + \sqrt 3", r"\sqrt{5 + 2\sqrt 6}"]),
        ("x^2 - 1", &["(x-1)(x+1)", "x*x - 1", r"\frac{x^3 - x}{x}", "x² − 1", "X^2 - 1"]),
        (
            r"\binom{n}{2}",
            &[r"\frac{n(n-1)}{2}", r"\frac{n^2}{2} - \frac n2", r"\frac{n!}{2(n-2)!}"],
        ),
        (r"2^{2n+1}", &[r"2 \cdot 4^n", r"2^n \cdot 2^{n+1}", r"4^{n + \frac12}"]),
        (r"\sin 2x", &[r"2 \sin x \cos x", r"2\sin(x)\cos(x)"]),
        (r"\ln 6", &[r"\ln 2 + \ln 3", r"\log_e 6"]),
        (r"e^{i\pi}", &["-1"]),
        (r"(-\infty, 3]", &[r"x \in (-\infty, 3]", r"\{x : x \le 3\}"]),
        (r"\{1, 2\}", &["2, 1", "1 and 2", "x = 1 or x = 2", r"\{2, 1, 1\}", "1; 2"]),
        (r"\pm\sqrt 2", &[r"\sqrt 2, -\sqrt 2", r"\{\pm 2^{1/2}\}"]),
        (r"\frac{-1 \pm \sqrt{13}}{4}", &[r"\frac{-1+\sqrt{13}}{4}, \frac{-1-\sqrt{13}}{4}"]),
        (
            "(1, 2)",
            &["1, 2", r"\left(1, \frac42\right)", "(x, y) = (1, 2)", r"\langle 1, 2 \rangle"],
        ),
        ("]0, 1[", &["(0, 1)", r"\left]0, 1\right["]),
        ("y = 2x + 1", &["2x + 1", "2y - 4x = 2", "y - 2x - 1 = 0"]),
        ("x = 5", &["5", "5 = x", "x = 2 + 3 = 5"]),
        ("x > 3", &["3 < x", r"(3, \infty)", "x > 3.0"]),
        (r"0 < \infty", &["0 < ∞"]),
        (r"|x - 1| < 2", &["(-1, 3)", r"x \in (-1, 3)"]),
        (
            r"x \le -1 \text{ or } x \ge 1",
            &[r"(-\infty, -1] \cup [1, \infty)", r"x \ge 1 \text{ or } x \le -1"],
        ),
        (
            r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
            &[r"\begin{bmatrix} 1 & 2 \\ 3 & 2^2 \end{bmatrix}"],
        ),
        (r"\begin{vmatrix} 1 & 2 & 3 \\ 0 & 4 & 5 \\ 1 & 0 & 6 \end{vmatrix}", &["22"]),
        (r"5 \text{ cm}", &["5", "5 cm", r"5\,\mathrm{cm}", "5 centimeters", "5 wide"]),
        (r"\text{Evelyn}", &["Evelyn", "evelyn", r"\textbf{Evelyn}"]),
        (r"1011_2", &["1011", r"1011_{2}"]),
        (r"\begin{cases} x = 1 \\ y = 2 \end{cases}", &["x = 1, y = 2", "y = 2, x = 1"]),
        (r"\lfloor \pi \rfloor", &["3", r"\lceil e \rceil"]),
        (r"\infty", &[r"+\infty", "infinity", "∞"]),
        ("10^{10^{10}}", &["10^{10^{10}}", r"10^{10^{10}} + 1 - 1"]),
    ];
    for (reference, answers) in same {
        for answer in *answers {
            assert!(boxed(reference, answer), "{reference} | {answer}");
        }
    }
}

#[test]
fn another_answer_is_wrong() {
    let different: &[(&str, &[&str])] = &[
        ("1/2", &["0.05", "1/3", "2", r"0.5\%", "0.50001", "1/0", "0.5 + 10^{-9}", "(1, 2)", ""]),
        ("0.00000001", &["0.00000002", "0"]),
        (r"\sqrt 2", &["1.414", r"-\sqrt 2", "2", r"\sqrt 2 + 10^{-12}"]),
        (r"e^{\pi\sqrt{163}}", &["262537412640768744"]),
        ("x^2 - 1", &["x^2 + 1", "x^2", "(x-1)^2", "y^2 - 1", "0"]),
        (r"\sqrt{x^2}", &["x"]),
        (r"\pi(R^2 - r^2)", &[r"\pi(r^2 - R^2)", "0"]),
        ("2", &["1 or 2", "1, 2", r"\{1, 2\}", "x = 1, x = 2", "not 2"]),
        (r"\{1, 2\}", &["1", "2", "1, 2, 3", "1, 3"]),
        ("(1, 2)", &["(2, 1)", "[1, 2]", "(1, 2, 3)"]),
        ("[0, 1)", &["[0, 1]", "(0, 1)", "0 \\le x < 1", "[1, 0)"]),
        ("x = 5", &["y = 5", "x = 6", "x > 5"]),
        ("x > 3", &[r"x \ge 3", "x < 3", "-x > -3", r"[3, \infty)"]),
        ("5 cm", &["5 m", "5 cm^2"]),
        (r"\$5", &["5 cents"]),
        (r"\mathbb{R}", &[r"\mathbb{Z}", r"(0, \infty)"]),
        (r"\text{even}", &[r"\text{odd}", r"\text{not even}", "2"]),
        ("10^{10^{10}}", &["10^{10^{9}}", "5"]),
        ("123", &["12,3", "1 2 3", "1.23"]),
    ];
    for (reference, answers) in different {
        for answer in *answers {
            let verdict = verdict(reference, &format!("\\boxed{{{answer}}}"));
            assert_eq!(verdict, "0", "{reference} | {answer}");
        }
    }
}

#[test]
fn one_answer_counts_and_it_is_the_last_or_the_marked_one() {
    let cases = [
        ("9", "It is 9.", "1"),
        ("9", "It is not 9.", "0"),
        ("9", "9 is what I thought, but it is 10.", "0"),
        ("9", "8, 9, 10", "0"),
        ("9", "$8$, then $9$ and then $10$", "0"),
        ("9", r"\boxed{8}. No: \boxed{9}", "1"),
        ("8", r"\boxed{8}. No: \boxed{9}", "0"),
        ("9", r"$x = 3$, so $x^2 = 9$", "1"),
        ("3", r"$x = 3$, so $x^2 = 9$", "0"),
        ("9", "<think>\\boxed{8}</think> 9", "1"),
        ("9", "<think>\\boxed{9}", "0"),
        ("1/2", r"The probability is \frac{1}{2}", "1"),
        ("1/2", "The answer is 1/2. Good luck!", "1"),
        ("Evelyn", "The answer is Evelyn.", "1"),
        ("Evelyn", "It is Evelyn or Carla.", "0"),
        ("9", "", "0"),
        ("9", "nine", "0"),
        ("28%", "It grew by $28$ percent", "1"),
        ("5", "so 5m", "1"),
        ("2", "AZYUK2A", "0"),
        ("", "9", "empty_reference"),
        (r"\int_0^1 x", "9", "bad_reference"),
        ("???", "9", "bad_reference"),
        ("9", r"\boxed{9^{9^{9^{9^9}}}}", "0"),
        ("9", r"\boxed{1e999999999}", "0"),
        ("9", r"\boxed{\sin(10^{300})}", "0"),
        ("x^2", r"\boxed{x^{9^{9^{9^9}}}}", "undecided"),
        ("-5", "The temperature is minus 5 degrees", "1"),
        ("5", "The temperature is minus 5 degrees", "0"),
        ("-12", "The answer is negative 12.", "1"),
        ("12", "The answer is negative 12.", "0"),
        ("-12", "Minus 12", "1"),
        ("9", r"\boxed{\frac}", "0"),
        // A last box that never closes takes the answer back.
        ("12", r"First \boxed{12}. Let me finalise it: \boxed{", "0"),
        ("12", r"\boxed{12} \boxed{12", "0"),
        ("12", r"It is 12, so \boxed{\text{12}", "0"),
        ("12", r"\boxed{ no, \boxed{12}", "1"),
        // A solution is read by its mark; what an escape has eaten is told.
        ("She sold 24 in May.\n#### 24", "24", "1"),
        (r"so $x = \boxed{24}$ of 100", "24", "1"),
        (r"so $x = \boxed{24", "24", "bad_reference"),
        ("\u{c}rac{1}{2}", "0.5", "bad_reference"),
        ("5\text{ cm}", "5", "bad_reference"),
    ];
    for (reference, response, expected) in cases {
        assert_eq!(verdict(reference, response), expected, "{reference} | {response}");
    }
}

#[test]
fn the_options_decide() {
    let base = Math::default;
    let cases = [
        (Math { decimals: 2, ..base() }, r"\frac13", "0.333", "1"),
        (Math { decimals: 9, ..base() }, r"\frac13", "0.333333", "0"),
        (Math { separators: Separators::Comma, ..base() }, "2.5", r"\boxed{2,5}", "bad_reference"),
        (Math { separators: Separators::Comma, ..base() }, "2,5", r"\boxed{\frac52}", "1"),
        (Math { percent: Percent::Hundredth, ..base() }, "28", r"\boxed{28\%}", "0"),
        (Math { percent: Percent::AsReference, ..base() }, "0.28", r"\boxed{28\%}", "0"),
        (Math { units: Units::Required, ..base() }, "5 cm", r"\boxed{5}", "0"),
        (Math { units: Units::Required, ..base() }, "5 cm", r"\boxed{5 \text{ centimeters}}", "1"),
        (Math { max_bytes: 10, ..base() }, "5", "5, and so on, and on", "0"),
    ];
    for (math, reference, response, expected) in cases {
        assert_eq!(verdict_by(&math, reference, response), expected, "{reference} | {response}");
    }
    assert_eq!(toml::from_str::<Math>("decimals = 3").unwrap(), Math { decimals: 3, ..base() });
}

#[test]
fn what_is_not_read_is_told_apart_from_what_is_wrong() {
    let deep = format!(r"\boxed{{{}13{}}}", "(".repeat(200), ")".repeat(200));
    for response in [r"\boxed{\frac}", "no idea", r"\boxed{9^{9^{9^{9^9}}}}", &deep] {
        let verdict = Math::default().compare("5", response).unwrap().verdict;
        assert!(matches!(verdict, Verdict::Unreadable(_)), "{response}: {verdict:?}");
    }
}

/// A formula as LaTeX, with a value that is computed beside it.
fn formulas() -> impl Strategy<Value = (String, i64)> {
    let leaf = (-20i64..20).prop_map(|value| (format!("({value})"), value));
    leaf.prop_recursive(4, 24, 2, |inner| {
        (inner.clone(), inner, 0..3).prop_map(|((left, a), (right, b), operator)| match operator {
            0 => (format!("({left}+{right})"), a.wrapping_add(b)),
            1 => (format!("({left}-{right})"), a.wrapping_sub(b)),
            _ => (format!("({left} \\cdot {right})"), a.wrapping_mul(b)),
        })
    })
}

fn polynomial(coefficients: &[i64]) -> String {
    let terms: Vec<String> = coefficients
        .iter()
        .enumerate()
        .map(|(power, value)| format!("({value})x^{{{power}}}"))
        .collect();
    terms.join("+")
}

fn product(left: &[i64], right: &[i64]) -> Vec<i64> {
    let mut product = vec![0; left.len() + right.len() - 1];
    for (i, a) in left.iter().enumerate() {
        for (j, b) in right.iter().enumerate() {
            product[i + j] += a * b;
        }
    }
    product
}

proptest! {
    #[test]
    fn what_is_computed_is_right((formula, value) in formulas()) {
        prop_assert!(boxed(&value.to_string(), &formula), "{} {}", value, formula);
        prop_assert!(boxed(&formula, &value.to_string()));
        prop_assert!(!boxed(&(value + 1).to_string(), &formula));
    }

    #[test]
    fn every_answer_is_itself(answer in "[-]?[0-9]{1,4}(x|y|\\^2|/7|\\+z|\\\\sqrt\\{5\\}|\\\\pi ){0,3}") {
        prop_assert!(boxed(&answer, &answer), "{}", answer);
    }

    #[test]
    fn fractions_and_decimals(over in -10_000i64..10_000, places in 0u32..5) {
        let under = 10i64.pow(places);
        let sign = if over < 0 { "-" } else { "" };
        let decimal = format!("{sign}{}.{:0width$}", over.abs() / under, over.abs() % under, width = places as usize);
        let fraction = format!("\\frac{{{over}}}{{{under}}}");
        prop_assert!(boxed(&decimal, &fraction) && boxed(&fraction, &decimal), "{} {}", decimal, fraction);
        prop_assert!(!boxed(&decimal, &format!("\\frac{{{}}}{{{under}}}", over + 1)), "verdict");
    }

    #[test]
    fn expanded_and_factored(left in prop::collection::vec(-9i64..10, 1..5), right in prop::collection::vec(-9i64..10, 1..5)) {
        let factored = format!("({})({})", polynomial(&left), polynomial(&right));
        let mut expanded = product(&left, &right);
        prop_assert!(boxed(&polynomial(&expanded), &factored), "{}", factored);
        prop_assert!(boxed(&factored, &polynomial(&expanded)), "{}", factored);
        expanded[0] += 1;
        prop_assert!(!boxed(&polynomial(&expanded), &factored), "{}", factored);
    }

    #[test]
    fn rational_expressions(a in 1i64..20, b in 1i64..20, c in 1i64..20) {
        // a/(x + b) + c = (cx + bc + a)/(x + b)
        let (split, joined) = (format!("\\frac{{{a}}}{{x+{b}}}+{c}"), format!("\\frac{{{c}x+{}}}{{x+{b}}}", b * c + a));
        prop_assert!(boxed(&split, &joined) && boxed(&joined, &split));
        prop_assert!(!boxed(&split, &format!("\\frac{{{c}x+{}}}{{x+{b}}}", b * c + a + 1)), "verdict");
    }

    #[test]
    fn surds(a in 1i64..60, b in 1i64..60, c in 1i64..9) {
        // c√a · √b = √(c²ab), and (√a + √b)² = a + b + 2√(ab)
        let square = c * c * a * b;
        prop_assert!(boxed(&format!("{c}\\sqrt{{{a}}}\\sqrt{{{b}}}"), &format!("\\sqrt{{{square}}}")), "verdict");
        prop_assert!(!boxed(&format!("{c}\\sqrt{{{a}}}\\sqrt{{{b}}}"), &format!("\\sqrt{{{}}}", square + 1)), "verdict");
        let nested = format!("\\sqrt{{{}+2\\sqrt{{{}}}}}", a + b, a * b);
        prop_assert!(boxed(&nested, &format!("\\sqrt{{{a}}}+\\sqrt{{{b}}}")), "{}", nested);
    }

    #[test]
    fn order_counts_in_tuples_alone(mut members in prop::collection::vec(-99i64..99, 2..6)) {
        let joined = |members: &[i64]| members.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        let before = joined(&members);
        members.reverse();
        let after = joined(&members);
        prop_assert!(boxed(&format!("\\{{{before}\\}}"), &format!("\\{{{after}\\}}")), "verdict");
        prop_assert_eq!(boxed(&format!("({before})"), &format!("({after})")), before == after);
        members[0] += 200;
        prop_assert!(!boxed(&format!("\\{{{before}\\}}"), &format!("\\{{{}\\}}", joined(&members))), "verdict");
    }

    #[test]
    fn values_are_compared_in_both_directions(left in formulas(), right in formulas()) {
        prop_assert_eq!(boxed(&left.0, &right.0), boxed(&right.0, &left.0));
        prop_assert_eq!(boxed(&left.0, &right.0), left.1 == right.1);
    }
}

/// What a policy would find: answers that look like the reference, or restate the question. Most of
/// them pass elsewhere.
#[test]
fn what_a_policy_would_try() {
    let wrong = [
        // Words that change the number.
        ("1", r"\boxed{1 \text{ million}}"),
        ("5", r"\boxed{5 \text{ thousand}}"),
        ("5", "It is 5 thousand."),
        ("3", r"\boxed{3 \text{ dozen}}"),
        ("5", r"\boxed{5 \text{ or more}}"),
        ("5", r"\boxed{\text{at least } 5}"),
        ("5", r"\boxed{5 \text{ is wrong}}"),
        ("5", r"\boxed{5 \text{ at most}}"),
        ("5", "x = 5 is false"),
        ("5", "The answer is definitely not 5, it is 6"),
        ("5 km", r"\boxed{5 \text{ m}}"),
        ("5 hours", "The answer is 5 minutes."),
        // Another base, another angle.
        ("12_8", r"\boxed{12_9}"),
        ("101101_2", r"\boxed{101101_3}"),
        (r"\sin 30^\circ", r"\sin 30"),
        (r"\frac12", r"\sin 30"),
        // Several answers at once.
        ("17", "The answer is 17 or 18."),
        ("17", r"\boxed{17}, \boxed{18}"),
        ("17", r"\boxed{16, 17}"),
        ("17", r"\boxed{17 \pm 5}"),
        ("17", r"\boxed{[16, 18]}"),
        // Almost a whole number.
        ("17", r"\boxed{17.0000004}"),
        ("17", r"\boxed{16.9999999}"),
        ("1000000", r"\boxed{999999.9999999}"),
        ("1.0000001", r"\boxed{1}"),
        // The question, perhaps.
        ("x = 5", r"\boxed{2x = 10}"),
        ("x = 5", r"\boxed{2x + 3 = 13}"),
        ("x = 5", r"\boxed{x + 1 = 6}"),
        ("x > 3", r"\boxed{2x > 6}"),
        ("x > 3", r"\boxed{x - 3 > 0}"),
        ("-2 < x < 7", r"\boxed{-4 < 2x < 14}"),
        ("x = 5", r"\boxed{x = x}"),
        ("y = 2x", r"\boxed{0 = 0}"),
        ("y = 2x", r"\boxed{y^2 = 2xy}"),
        // No value at all.
        ("1", r"\boxed{\frac{0}{0}}"),
        (r"\infty", r"\boxed{\frac{1}{0}}"),
        (r"\text{even}", r"\boxed{\text{odd or even}}"),
        (r"\text{No}", "I think yes or no."),
    ];
    for (reference, response) in wrong {
        assert_eq!(verdict(reference, response), "0", "{reference} | {response}");
    }
    let right = [
        ("5000", "It is 5 thousand."),
        ("1000000", r"\boxed{1 \text{ million dollars}}"),
        (r"66\frac{2}{3}\%", r"\boxed{66\frac{2}{3}\%}"),
        (r"66\frac{2}{3}\%", r"\boxed{\frac{2}{3}}"),
        (r"100\%", "It rises by 100%."),
        ("7", "We divide by 7."),
        ("ax + by = 7", "So we have ax + by = 7"),
        (r"\sin 30^\circ", r"\frac12"),
        (r"\tan(45^\circ)", "1"),
        (r"\sqrt[3]{x}^2", "x^{2/3}"),
        ("1 < x < 3", r"\boxed{x > 1 \text{ and } x < 3}"),
        ("x = 5", r"\boxed{5 = x}"),
        ("x = 11", "x = 5 + 6 = 11"),
        ("0.333333", r"\boxed{\frac{1}{3}}"),
        (r"\frac{1}{3}", r"\boxed{0.333333}"),
        ("5", "The wrong digit is 5."),
    ];
    for (reference, response) in right {
        assert_eq!(verdict(reference, response), "1", "{reference} | {response}");
    }
}
