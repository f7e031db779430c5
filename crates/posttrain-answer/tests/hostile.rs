//! Text that was written to break a verifier: bounded time, no panic, 0 or 1.

// Functions outside #[test] unwrap, too.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use posttrain_answer::choice::{Choice, Options};
use posttrain_answer::json::Json;
use posttrain_answer::list::List;
use posttrain_answer::number::Numeric;
use posttrain_answer::short::{ShortAnswer, Strictness};
use posttrain_answer::text::{Normalizer, word_overlap};
use posttrain_answer::{Extraction, extract, same};
use proptest::prelude::*;

const ORDER: [Extraction; 6] = [
    Extraction::Boxed,
    Extraction::Hashes,
    Extraction::Phrase,
    Extraction::LastNumber,
    Extraction::LastLine,
    Extraction::Plain,
];

/// Whether a response is right about a reference; a reference that is refused agrees with nothing.
type Rule = Box<dyn Fn(&str, &str) -> bool>;

fn rules() -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for strictness in [Strictness::LastAnswer, Strictness::WholeResponse] {
        // Nothing is cut off here, so that every algorithm sees all of the text.
        let rule = ShortAnswer { strictness, max_bytes: 1 << 24, ..ShortAnswer::default() };
        rules.push(Box::new(move |reference, response| {
            rule.compare(reference, response).is_ok_and(|comparison| comparison.verdict.is_same())
        }));
    }
    rules.push(Box::new(|reference, response| Normalizer::default().matches(response, reference)));
    rules.push(Box::new(same));
    rules
}

fn attacks() -> Vec<String> {
    let fragments = [
        "{",
        "}",
        "\\boxed{",
        "\\boxed{\\boxed{1}",
        "\\frac{",
        "\\frac{1}{",
        "\\",
        "9",
        "9,",
        "9 ",
        "1/",
        "1 1/2 ",
        "1e",
        "9.",
        "-",
        "- ",
        "5 - ",
        "answer ",
        "the answer is ",
        "answer is:",
        "answer  *_",
        "####",
        "#### ",
        "is ",
        "the ",
        "not ",
        "or ",
        "Paris ",
        "Paris",
        "*",
        "**",
        "_",
        "$",
        "=",
        "<think>",
        "</think>",
        "½",
        "²",
        "\u{a0}",
        "9\u{a0}",
        "1\u{a0}000",
        "\u{200b}",
        "\u{301}",
        "\u{fdfa}",
        "\u{1d7ce}",
        "巴",
        "x",
        "x 10^",
        " ",
        "\n",
        "1 ×",
        "St. ",
        ". ",
        ", ",
        "\0",
    ];
    let large = [
        "{".repeat(300_000),
        "\\boxed{".repeat(150_000),
        "9".repeat(1_000_000),
        "1,234".repeat(200_000),
    ];
    let repeated = fragments.iter().map(|fragment| fragment.repeat(200_000 / fragment.len()));
    large.into_iter().chain(repeated).collect()
}

#[test]
fn much_of_anything_is_quick_and_wrong() {
    let rules = rules();
    for attack in attacks() {
        for reference in ["77", "London", "N", "1/3 kg"] {
            for rule in &rules {
                let start = Instant::now();
                let head: String = attack.chars().take(20).collect();
                assert!(!rule(reference, &attack), "{head}");
                // Linear work is tens of milliseconds here; quadratic work on 200 KB is 4e10 steps.
                assert!(start.elapsed() < Duration::from_secs(10), "{head}: {:?}", start.elapsed());
            }
        }
    }
}

#[test]
fn much_of_anything_is_quick_in_lists_choices_and_json() {
    let choice = Choice { max_bytes: 1 << 24, ..Choice::default() };
    let json = Json { max_bytes: 1 << 24, ..Json::default() };
    for attack in attacks() {
        let start = Instant::now();
        let head: String = attack.chars().take(20).collect();
        assert!(
            !choice.compare("B", &attack, &Options::unknown()).unwrap().verdict().is_same(),
            "{head}"
        );
        assert!(!json.compare("[77]", &attack).unwrap().verdict.is_same(), "{head}");
        assert!(!List::default().compare("77, 78", &attack).unwrap().is_complete(), "{head}");
        assert_eq!(word_overlap("77", &attack).f1(), 0.0, "{head}");
        assert!(start.elapsed() < Duration::from_secs(20), "{head}: {:?}", start.elapsed());
    }
}

#[test]
fn every_extraction_is_quick() {
    for attack in attacks() {
        for way in ORDER {
            let start = Instant::now();
            let _ = way.find(&attack);
            assert!(start.elapsed() < Duration::from_secs(10), "{way:?}: {:?}", start.elapsed());
        }
    }
}

#[test]
fn an_answer_survives_what_stands_before_it() {
    let rule = ShortAnswer::default();
    for attack in attacks().iter().filter(|attack| !attack.starts_with("<think>")) {
        let response = format!("{attack}\n\\boxed{{77}}");
        let verdict = rule.compare("77", &response).unwrap().verdict;
        assert!(verdict.is_same(), "{}", &response[response.len() - 20..]);
    }
}

#[test]
fn hostile_references_are_bounded_too() {
    let rule = ShortAnswer::default();
    for attack in attacks() {
        let start = Instant::now();
        let _ = rule.compare(&attack, "77");
        let _ = same(&attack, "77");
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
}

/// Text made of what the verifiers look for.
fn fragments() -> impl Strategy<Value = String> {
    let fragment = prop_oneof![
        Just("\\boxed{".to_owned()),
        Just("}".to_owned()),
        Just("#### ".to_owned()),
        Just("The answer is ".to_owned()),
        Just("\\frac{1}{2}".to_owned()),
        Just(" × 10^".to_owned()),
        Just("½".to_owned()),
        Just("**".to_owned()),
        "[-−+$€%.,/^=e'x ]{1,3}",
        "[0-9]{1,5}",
        "[٠-٩²³₂\u{a0}]{1,3}",
        "[a-zA-Z]{1,6} ",
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(fragment, 0..24).prop_map(|fragments| fragments.concat())
}

proptest! {
    #[test]
    fn any_text_has_a_verdict(response in prop_oneof![any::<String>(), fragments()], reference in fragments()) {
        for rule in rules() {
            let _ = rule(&reference, &response);
            let _ = rule(&response, &reference);
        }
    }

    #[test]
    fn any_text_is_extracted_or_not(text in fragments()) {
        for way in ORDER {
            if let Some((answer, by)) = extract(&text, &[way]) {
                prop_assert_eq!(by, way);
                prop_assert!(!answer.trim().is_empty());
            }
        }
    }

    #[test]
    fn a_number_is_right_for_itself_alone(number in -100_000i64..100_000, other in -100_000i64..100_000) {
        let rule = ShortAnswer::default();
        let is_right = |reference: i64, response: String| {
            rule.compare(&reference.to_string(), &response).unwrap().verdict.is_same()
        };
        for response in [format!("{number}"), format!("It is {number}."), format!("{other}, so {number} apples")] {
            prop_assert!(is_right(number, response.clone()));
            prop_assert_eq!(is_right(other, response), number == other);
        }
    }

    #[test]
    fn notation_does_not_matter(mantissa in -1_000_000_000i64..1_000_000_000, places in 0u32..6) {
        let scale = 10i64.pow(places);
        let sign = if mantissa < 0 { "-" } else { "" };
        let (whole, decimals) = (mantissa.abs() / scale, mantissa.abs() % scale);
        let plain = format!("{sign}{whole}.{decimals:0width$}0", width = places as usize);
        let scientific = format!("{mantissa}e-{places}");
        let rule = Numeric::default();
        prop_assert!(rule.matches(&plain, &scientific), "{plain} {scientific}");
        let next = format!("{}e-{places}", mantissa + 1);
        prop_assert!(!rule.matches(&plain, &next), "{plain} {next}");
    }
}
