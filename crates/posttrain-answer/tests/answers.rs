//! Which responses answer.

// Functions outside #[test] unwrap, too.
#![allow(clippy::unwrap_used)]

use posttrain_answer::number::Numeric;
use posttrain_answer::short::{ShortAnswer, Strictness};
use posttrain_answer::{AnswerError, Extraction, extract};

fn check(rule: &ShortAnswer, cases: &[(&str, &str, bool)]) {
    for (reference, response, right) in cases {
        let comparison = rule.compare(reference, response).unwrap();
        assert_eq!(
            comparison.verdict.is_same(),
            *right,
            "{reference}: {response:?} ({:?})",
            comparison.found
        );
    }
}

#[test]
fn numbers_at_the_end() {
    let cases = [
        ("12", "12", true),
        ("12", "12.", true),
        ("12", "3 + 9 = 12", true),
        ("12", "3 + 9 equals 12.", true),
        ("12", "The answer is 12. 3 + 9 = 12", true),
        ("12", "The answer is 12.\n\nI hope this helps!", true),
        ("12", "The answer is **12**.", true),
        ("12", "The answer is 12. It took 2 steps.", true),
        ("12", "12 is the answer.", true),
        ("12", "She has 12 apples.", true),
        ("12", "She has *12* apples.", true),
        ("12", "She has 12 apples left in total, as wanted.", true),
        ("12", "$3 + $9 = $12", true),
        ("12", "x = 12", true),
        ("12", "3 \\times 4 = 12", true),
        ("12", "$3 \\times 4 = 12$", true),
        ("12", "\\(3 \\times 4 = 12\\)", true),
        ("12", "First 3 and 9. Then 12", true),
        ("12", "It is equal to 12", true),
        ("12", "3 - 4 → 12", true),
        ("12", "3 + 9 -> 12", true),
        ("12", "- 12", true),
        ("12", "Total - 12 apples", true),
        ("12", "12 cm^2", true),
        ("12", "12 cm²", true),
        ("12", "12 m/s", true),
        ("12", "12 H2O molecules", true),
        ("12", "There are 12 (not 13, surely) x", false),
        ("12", "not 13, but 12", true),
        ("12", "It is not 13. It is 12.", true),
        ("12", "答案是12。", true),
        ("12", "答案是１２", true),
        ("12", "الجواب هو ١٢", true),
        ("-5", "The result is -5.", true),
        ("-5", "The result is −5.", true),
        ("-5", "x = - 5", true),
        ("-5", "3 - 8 = -5", true),
        ("-5", "3 - 8 = 5", false),
        ("5", "3 - 8 = -5", false),
        ("0.5", "so it is ½.", true),
        ("0.5", "so it is 1/2.", true),
        ("1.5", "so it is 1 1/2 cups", true),
        ("1000", "It costs $1,000.", true),
        ("1000", "It is 1,000,", true),
        ("75", "It is 75%.", true),
        ("0.75", "It is 75%.", true),
        ("602", "6.02 × 10^2", true),
        // A substring of another number.
        ("9", "99", false),
        ("9", "19", false),
        ("9", "9.5", false),
        ("9", "0.9", false),
        ("9", "1,009", false),
        ("9", "9e2", false),
        ("9", "9,5", false),
        ("2", "H2", false),
        ("2", "cm^2", false),
        ("2", "CO₂", false),
        ("3", "2^3", false),
        ("3", "2**3", false),
        ("3", "2³", false),
        ("8", "2³", false),
        // Many answers.
        ("9", "7 8 9 10", false),
        ("10", "7 8 9 10", true),
        ("9", "7, 8, 9, 10", false),
        ("9", "7,8,9", false),
        ("9", "7 or 9", false),
        ("9", "It is either 7, 8 or 9.", false),
        ("9", "7 and 9", false),
        ("9", "between 7 and 9", false),
        ("9", "7 to 9", false),
        ("9", "7-9", false),
        ("9", "7–9", false),
        ("9", "7:9", false),
        ("9", "(7, 9)", true),
        ("9", "\\boxed{7} \\boxed{8} \\boxed{9}", true),
        ("9", "\\boxed{9} \\boxed{8}", false),
        ("9", "\\boxed{7, 8, 9}", false),
        ("9", "#### 7 8 9", false),
        // Repeating the question, or stopping within it.
        ("5", "0 + 5", false),
        ("5", "What is 0 + 5?", false),
        ("5", "1 × 5", false),
        ("5", "1 * 5", false),
        ("5", "1 x 5", false),
        ("5", "1x5", false),
        ("5", "\\(1 \\times 5\\)", false),
        ("5", "1 \\cdot 5", false),
        ("5", "10 - 5", false),
        ("5", "10 − 5", false),
        ("5", "10-5", false),
        ("5", "10 / 5", false),
        ("2", "10/5", false),
        ("2", "10 ÷ 5", false),
        ("5", "0 plus 5", false),
        ("5", "25 divided by 5", false),
        ("5", "The sum of 0 and 5", false),
        ("5", "10 kg - 5 kg", false),
        ("5", "10 apples - 5 apples", false),
        ("5", "What is 10 take away 5?", false),
        ("5", "0 increased by 5", false),
        ("5", "Multiply 1 by 5.", false),
        ("5", "0 + 5 =", false),
        ("5", "5 + 0", false),
        ("5", "5 +", false),
        ("5", "x + 5", false),
        ("5", "x - 5", false),
        ("5", "5x", false),
        ("5", "5 x", false),
        ("12", "12 = 3 + 9", false),
        // Bounds and denials.
        ("5", "x > 5", false),
        ("5", "x ≥ 5", false),
        ("5", "x ≠ 5", false),
        ("5", "x != 5", false),
        ("5", "less than 5", false),
        ("12", "It is not 12.", false),
        ("12", "It isn't 12", false),
        ("12", "12 is not the answer", false),
        ("12", "The answer is not 12.", false),
        // Nothing.
        ("12", "", false),
        ("12", "   \n ", false),
        ("12", "twelve", false),
        ("12", "\\boxed{}", false),
        ("12", "The answer is unclear. 12", false),
        ("5", "5k", false),
        ("5", "It is 5 million", false),
    ];
    check(&ShortAnswer::default(), &cases);
}

#[test]
fn what_small_models_say() {
    let cases = [
        ("12", "3 + 9 is 12.", true),
        ("12", "3 plus 9 equals 12.", true),
        ("12", "The sum of 3 and 9 is 12.", true),
        ("12", "3 + 9 = 12.\n\nSo, the answer is 12.", true),
        ("12", "12\n", true),
        ("12", "3 × 4 is 12", true),
        ("7", "To find x, we subtract 5 from both sides: x = 12 - 5 = 7", true),
        ("7", "x = 12 - 5\nx = 7", true),
        ("7", "x + 5 = 12", false),
        ("7", "12 - 5 = 7 apples left.", true),
        ("36", "The product of 4 and 9 is 36", true),
        ("4.184", "It is 4.184 J/(g·K).", true),
        ("8", "An atom of oxygen has 8 protons.", true),
        ("8", "Oxygen has atomic number 8.", true),
        ("26", "The atomic number of iron (Fe) is 26.", true),
        ("Fe", "The chemical symbol for iron is Fe.", true),
        ("Fe", "Iron's symbol is \"Fe\".", true),
        ("Fe", "Fe (iron)", false),
        ("Iron", "The element is iron (Fe).", false),
        ("Euro", "The currency of France is the Euro (EUR).", false),
        ("Austin", "The capital of Texas is Austin, Texas.", false),
        ("10 m/s", "The speed is 10 m/s.", true),
        ("10 m/s", "v = d / t = 50 m / 5 s = 10 m/s", true),
        ("10", "50 m / 5 s = 10 m/s", true),
        ("10", "v = 10\u{a0}m/s", true),
        ("20", "F = ma = 4 * 5 = 20 N", true),
        ("20", "F = 4 kg * 5 m/s^2 = 20 N", true),
        ("5", "4 kg * 5 m/s^2", false),
        ("50", "W = F*d = 10 N × 5 m = 50 J", true),
        ("5", "10 N × 5 m", false),
        ("2.5", "The answer is 2.5 g/cm³.", true),
        ("2.5", "density = 5 g / 2 cm^3 = 2.5 g/cm^3", true),
        ("100", "Water boils at 100°C.", true),
        ("100", "100 °C (212 °F)", false),
        ("-40", "It is −40 °C", true),
        ("1776", "It was in 1776.", true),
        ("50", "There are 50 states in the U.S.", true),
        ("5", "3 apples + 5 apples", false),
        ("5", "0 apples and 5 apples", false),
        ("12", "12/1", false),
        ("25", "That is 25% off", true),
        ("25", "25 percent", true),
        ("0.25", "25 out of 100", false),
        ("5", "≈ 5", true),
        ("5", "about 5", true),
        ("5", "~5", true),
        ("5", "5-ish", true),
        ("5", "5 (five)", true),
        ("5", "five (5)", true),
        ("5", "A: 5", true),
        ("5", "[5]", true),
        ("5", "{5}", true),
        ("5", "5-", true),
        ("12", "| 12 |", true),
        ("12", "12 😀", true),
        ("Paris", "Paris 😀", false),
        ("Paris", "It is Paris 😀", false),
        ("3", "1, 2, and 3", false),
        ("15", "Step 1: 3 * 5 = 15", true),
        ("15", "1. 3 * 5 = 15", true),
        ("15", "15 = 3 * 5", false),
        ("15", "15, since 3 * 5 = 15", true),
        ("60", "60 minutes × 1", false),
        ("1,200", "$1,200", true),
        ("6", "2 × 3 = 6 ✓", true),
        ("6", "2 x 3 = 6", true),
        ("6", "2x3=6", true),
        ("6", "2x=6", true),
        ("3", "2x = 6, x = 3", true),
        ("3", "2x = 6 => x = 3", true),
        ("3", "x=6/2=3", true),
        ("3", "x = 6/2", false),
        ("3", "x = \\frac{6}{2}", false),
        ("3", "x = \\frac{6}{2} = 3", true),
        ("3", "$x = \\boxed{3}$", true),
        ("0.1", ".1", true),
        ("1/3", "one third is 1/3", true),
        ("1/3", "\\(\\frac{1}{3}\\)", true),
        ("9", "the 9th", true),
        ("9", "9 o'clock", true),
        ("1", "No. 1", true),
        ("30", "5 × (2 + 4) = 30", true),
        ("4", "5 × (2 + 4)", false),
        ("4", "(4)", true),
        ("5", "sqrt(25) = 5", true),
        ("5", "√5", false),
        ("5", "2√5", false),
        ("5", "f(5)", false),
        ("5", "log 5", true),
        ("5", "|5|", true),
        ("5", "|-5|", false),
        ("9", "7\n9", true),
        ("9", "7\n+ 9", true),
        ("No", "no", true),
        ("yes", "Yes.", true),
        ("yes", "Yes, it is.", false),
        ("Asia", "Japan is a country in Asia.", true),
        ("Asia", "Japan is on the continent of Asia.", false),
        ("Asia", "Japan belongs to Asia.", false),
        ("Asia", "Japan is located in East Asia.", false),
        ("Yen", "Japan uses the yen.", true),
        ("Japanese Yen", "Japan uses the Japanese yen", true),
        ("gas", "At 25 °C, oxygen is a gas.", true),
        ("gas", "Oxygen is in the gas state", false),
        ("newton", "The SI unit of force is the newton (N).", false),
        ("newton", "Force is measured in newtons.", false),
        ("Spanish", "People in Spain speak Spanish.", true),
        ("Spanish", "The language is Spanish", true),
        ("TX", "Texas is abbreviated as TX.", true),
        ("TX", "Texas is abbreviated TX.", false),
    ];
    check(&ShortAnswer::default(), &cases);
}

#[test]
fn marked_answers() {
    let cases = [
        ("12", "\\boxed{12} because 3 + 9 is the sum of 2 numbers", true),
        ("12", "\\boxed{12 \\text{ apples}}", true),
        ("12", "\\boxed{x = 12}", true),
        ("12", "$\\boxed{12}$.", true),
        ("0.75", "\\boxed{\\frac{3}{4}}", true),
        ("12", "\\boxed{13} or 12", false),
        ("12", "#### 12", true),
        ("12", "steps\n#### 12\nThat used 2 numbers.", true),
        ("12", "#### 13\n12", false),
        ("12", "Answer: 12", true),
        ("12", "**Answer:** 12\n\n3 numbers", true),
        ("12", "Answer:\n12", true),
        ("Paris", "\\boxed{\\text{Paris}}", false),
        ("Paris", "\\boxed{Paris}", true),
        ("Paris", "\\boxed{Paris or London}", false),
        ("Paris", "The answer is Paris. It is in France.", true),
        ("Paris", "#### paris", true),
    ];
    check(&ShortAnswer::default(), &cases);
}

#[test]
fn words_at_the_end() {
    let cases = [
        ("Paris", "The capital of France is Paris.", true),
        ("Paris", "Paris or London", false),
        ("Paris", "London, Paris", false),
        ("Paris", "It is not Paris.", false),
        ("Paris", "The answer is not Paris.", false),
        ("N", "The symbol is N.", true),
        ("N", "The symbol is n.", false),
        ("Co", "Co", true),
        ("Co", "CO", false),
        ("+1-268", "The calling code is +1-268.", true),
        ("+1-268", "The calling code is 268.", false),
        ("D.C.", "It is D.C.", true),
        ("巴黎", "巴黎。", true),
        ("Москва", "Столица: москва", true),
    ];
    check(&ShortAnswer::default(), &cases);
}

#[test]
fn quantities_with_units() {
    let cases = [
        ("5 N", "The force is 5 N.", true),
        ("5 N", "The force is 5.", true),
        ("5 N", "The force is 5 J.", false),
        ("5 M", "It is 5 M.", true),
        ("$5", "It costs 5 dollars", true),
        ("$5", "It costs €5", false),
        ("7 wonders of the world", "7", false),
    ];
    check(&ShortAnswer::default(), &cases);
}

#[test]
fn the_whole_response() {
    let config = ShortAnswer { strictness: Strictness::WholeResponse, ..ShortAnswer::default() };
    let cases = [
        ("12", " 12. ", true),
        ("12", "**12**", true),
        ("12", "12 apples", true),
        ("12", "It is 12", false),
        ("12", "11 12", false),
        ("12", "\\boxed{12}", true),
        ("Paris", "paris!", true),
        ("Paris", "It is Paris", false),
    ];
    check(&config, &cases);
}

#[test]
fn thinking_is_not_an_answer() {
    let cases = [
        ("12", "<think>maybe 13</think>12", true),
        ("12", "<think>12</think>", false),
        ("12", "<think>it is 12", false),
        ("12", "maybe 13</think>\n\n12", true),
        ("12", "</think>12<think>", false),
    ];
    check(&ShortAnswer::default(), &cases);
}

#[test]
fn order_decides() {
    let both = "#### 7\n\\boxed{8}";
    let find = |order: &[Extraction]| extract(both, order).map(|(text, _)| text.into_owned());
    assert_eq!(find(&[Extraction::Hashes, Extraction::Boxed]).as_deref(), Some("7"));
    assert_eq!(find(&[Extraction::Boxed, Extraction::Hashes]).as_deref(), Some("8"));
    let numbers = ShortAnswer { order: vec![Extraction::LastNumber], ..ShortAnswer::default() };
    check(
        &numbers,
        &[("8", both, true), ("5", "it is 5 k", false), ("0.5", "½", true), ("5", "0 + 5", false)],
    );
    let lines = ShortAnswer { order: vec![Extraction::LastLine], ..ShortAnswer::default() };
    check(&lines, &[("12", "13\n12\n", true), ("12", "12\nDone.", false)]);
}

#[test]
fn only_the_end_is_looked_at() {
    let config = ShortAnswer { max_bytes: 10, ..ShortAnswer::default() };
    check(
        &config,
        &[
            ("12", &format!("12{}", " é".repeat(20)), false),
            ("12", &format!("{} 12", "é".repeat(99)), true),
        ],
    );
}

#[test]
fn options_are_checked_and_read_from_toml() {
    let text = "strictness = \"whole_response\"\norder = [\"hashes\"]\n[numeric]\nrelative_tolerance = 0.01\n";
    let rule: ShortAnswer = toml::from_str(text).unwrap();
    assert_eq!(rule.strictness, Strictness::WholeResponse);
    assert_eq!(rule.numeric, Numeric { relative_tolerance: 0.01, ..Numeric::default() });
    let numeric = Numeric { relative_tolerance: f64::NAN, ..Numeric::default() };
    assert!(ShortAnswer { numeric, ..ShortAnswer::default() }.validate().is_err());
    assert!(ShortAnswer { max_bytes: 0, ..ShortAnswer::default() }.validate().is_err());
    // The name that the field had in older files.
    let older: ShortAnswer = toml::from_str("[normaliser]\ncase = \"sensitive\"").unwrap();
    assert_eq!(older, toml::from_str("[normalizer]\ncase = \"sensitive\"").unwrap());
}

#[test]
fn a_reference_that_agrees_with_nothing_is_an_error() {
    let rule = ShortAnswer::default();
    assert_eq!(rule.compare(" ", "12"), Err(AnswerError::EmptyReference));
    for reference in ["First,\nthen.", "\u{c}rac12", &"word ".repeat(50)] {
        assert!(
            matches!(rule.compare(reference, "12"), Err(AnswerError::BadReference { .. })),
            "{reference}"
        );
    }
}

#[test]
fn a_solution_is_read_by_its_mark() {
    let solution = "She sold 48/2 = <<48/2=24>>24 clips in May.\n#### 24";
    let cases = [
        (solution, "#### 24", true),
        (solution, "It is 24.", true),
        (solution, "It is 48.", false),
    ];
    check(&ShortAnswer::default(), &cases);
}

#[test]
fn a_last_box_that_never_closes_takes_the_answer_back() {
    let cases = [
        ("12", r"First \boxed{12}. Let me finalise it: \boxed{", false),
        ("12", r"It is 12. \boxed{12", false),
        ("12", r"\boxed{ no: \boxed{12}", true),
    ];
    check(&ShortAnswer::default(), &cases);
}
