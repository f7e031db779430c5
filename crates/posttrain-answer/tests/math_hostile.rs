//! Text that was written to break the mathematics verifier: a verdict or an error, no panic, no
//! deep recursion.

// Functions outside #[test] unwrap, too.
#![allow(clippy::unwrap_used)]

use posttrain_answer::math::Math;
use posttrain_answer::{AnswerError, Verdict, same};
use proptest::prelude::*;

fn verifier() -> Math {
    Math { max_bytes: 1 << 24, ..Math::default() }
}

/// `1`, `0`, `undecided` or what is wrong with the reference.
fn verdict(math: &Math, reference: &str, response: &str) -> &'static str {
    match math.compare(reference, response).map(|comparison| comparison.verdict) {
        Ok(Verdict::Same) => "1",
        Ok(Verdict::Undecided(_)) => "undecided",
        Ok(_) => "0",
        Err(AnswerError::EmptyReference) => "empty_reference",
        Err(_) => "bad_reference",
    }
}

fn attacks() -> Vec<String> {
    let fragments = [
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        "\\{",
        "\\}",
        "|",
        "|1",
        "-",
        "+",
        "±",
        "\\pm ",
        "^",
        "^{",
        "2^",
        "x^",
        "_",
        "_{",
        "x_",
        "!",
        "5!",
        "%",
        "°",
        "/",
        "1/",
        "\\frac",
        "\\frac{",
        "\\frac{1}{",
        "\\frac1",
        "\\sqrt",
        "\\sqrt{",
        "\\sqrt[",
        "\\sqrt[3]{",
        "\\binom{",
        "\\log_",
        "\\sin",
        "\\sin^",
        "\\sin(",
        "f(",
        "\\text{",
        "\\text{and}",
        "\\begin{matrix}",
        "\\begin{pmatrix}1&",
        "\\begin{vmatrix}",
        "\\end{matrix}",
        "&",
        "\\\\",
        ",",
        ";",
        "1,",
        "1;",
        "x=",
        "x<",
        "\\in",
        "\\cup",
        "[0,1]\\cup",
        "\\{1\\}\\setminus",
        "\\mathbb{R}-",
        "\\left(",
        "\\left",
        "\\overline{",
        "0.\\overline{",
        "\\boxed{",
        "\\boxed{1},",
        "$",
        "$1$,",
        "$1$ and ",
        "\\(",
        "\\[",
        "1 or ",
        "9",
        "9,999",
        "1{,}",
        "e",
        "1e9",
        "i",
        "π",
        "√",
        "²",
        "½",
        "٣",
        "巴",
        "\u{301}",
        "\0",
        " ",
        "\n",
        "word ",
        "answer is ",
        "\\quad",
        "\\",
        "\\not",
        "\\over",
        "{1\\over",
        "\\lfloor",
        "\\rceil",
        "\\langle",
        "]0,1[",
        "\\mid",
        "\\{x|",
        "1:",
    ];
    let repeated = fragments.iter().flat_map(|fragment| {
        [60, 8_000, 100_000].into_iter().map(|bytes| fragment.repeat(bytes / fragment.len() + 1))
    });
    let nested = [
        ("(", ")"),
        ("{", "}"),
        ("\\frac{1}{", "}"),
        ("\\sqrt{", "}"),
        ("|", "|"),
        ("2^{", "}"),
        ("[", "]"),
        ("\\{", "\\}"),
        ("f(", ")"),
    ];
    let nested = nested.into_iter().flat_map(|(open, close)| {
        [10, 40, 100, 100_000]
            .into_iter()
            .map(move |depth| format!("{}1{}", open.repeat(depth), close.repeat(depth)))
    });
    let megabytes = ["{", "9", "\\frac{", "1 or ", "½"]
        .into_iter()
        .map(|fragment| fragment.repeat(2_000_000 / fragment.len()));
    repeated.chain(nested).chain(megabytes).collect()
}

/// Short, but large when computed.
const LARGE: [&str; 28] = [
    "10^{10^{10}}",
    "10^{10^{10^{10}}}",
    "9^{9^{9^9}}",
    "2^{-10^{18}}",
    "(-2)^{10^{18}+1}",
    "(10^{10^{10}})!",
    "(1000000)!",
    "20001!",
    "((5!)!)!",
    "\\binom{10^9}{5\\cdot 10^8}",
    "\\binom{20000}{10000}",
    "\\binom{n}{10^9}",
    "(x+y+z+a+b+c)^{100}",
    "(x+1)^{1000000}",
    "((((x+1)^{99}+y)^{99}+z)^{99}+1)^{99}",
    "x^{10^{30}}",
    "\\sqrt[1000000]{2}",
    "\\sqrt{10^{400}}",
    "\\sin(10^{100})",
    "e^{e^{e^{e^e}}}",
    "\\ln(10^{10^{15}})",
    "\\frac{1}{10^{-10^{15}}}",
    "\\lfloor 10^{50}\\pi \\rfloor",
    "(1+10^{-9})^{10^9}",
    "1e400",
    "1e401",
    "1e999999999999999999999",
    "\\prod 2",
];

#[test]
fn every_attack_ends() {
    let verifier = verifier();
    for attack in attacks() {
        for reference in ["77", "\\{1,2\\}"] {
            for response in [attack.clone(), format!("\\boxed{{{attack}}}")] {
                let verdict = verdict(&verifier, reference, &response);
                let head: String = attack.chars().take(20).collect();
                assert!(["0", "undecided"].contains(&verdict), "{reference} | {head}: {verdict}");
            }
        }
        let _ = verdict(&verifier, &attack, "77");
        let _ = same(&attack, &attack);
    }
}

#[test]
fn an_answer_survives_what_stands_before_it() {
    let verifier = verifier();
    for attack in attacks() {
        let response = format!("{attack}\n\n\\boxed{{77}}");
        assert_eq!(
            verdict(&verifier, "77", &response),
            "1",
            "{}",
            &attack.chars().take(20).collect::<String>()
        );
    }
}

#[test]
fn large_numbers_are_bounded_on_both_sides() {
    let verifier = verifier();
    for left in LARGE {
        for right in LARGE {
            let verdict = verdict(&verifier, left, &format!("\\boxed{{{right}}}"));
            assert!(
                ["0", "1", "undecided", "bad_reference"].contains(&verdict),
                "{left} {right}: {verdict}"
            );
            assert!(left != right || verdict != "0", "{left}: {verdict}");
        }
        let verdict = verdict(&verifier, "5", &format!("\\boxed{{{left}}}"));
        assert!(["0", "undecided"].contains(&verdict), "{left}: {verdict}");
    }
}

#[test]
fn large_numbers_that_differ_are_never_the_same() {
    let verifier = verifier();
    let different = [
        ("10^{10^{10}}", "10^{10^{10}}+1"),
        ("2^{1000}", "2^{1000}+1"),
        ("2^{100000}", "2^{100000}+1"),
        ("1000!", "1000!+1"),
        ("15000!", "15000!+1"),
        ("\\frac{1}{2004!}", "\\frac{1}{2006!}"),
        ("\\frac{1}{2^{99}}", "\\frac{1}{2^{98}}"),
        ("x^{1000}+1", "x^{1000}+2"),
        ("(x+1)^{100000}", "(x+1)^{100001}"),
        ("10^{400}\\pi", "10^{400}\\pi+1"),
    ];
    for (left, right) in different {
        assert_ne!(verdict(&verifier, left, &format!("\\boxed{{{right}}}")), "1", "{left} {right}");
        assert_ne!(verdict(&verifier, right, &format!("\\boxed{{{left}}}")), "1", "{left} {right}");
        assert_eq!(verdict(&verifier, left, &format!("\\boxed{{{left}}}")), "1", "{left}");
    }
}

fn fragments() -> impl Strategy<Value = String> {
    let fragment = prop_oneof![
        Just("\\frac{".to_owned()),
        Just("}{".to_owned()),
        Just("}".to_owned()),
        Just("\\sqrt".to_owned()),
        Just("\\boxed{".to_owned()),
        Just("\\left(".to_owned()),
        Just("\\right)".to_owned()),
        Just("\\begin{pmatrix}".to_owned()),
        Just("\\end{pmatrix}".to_owned()),
        Just(" \\cup ".to_owned()),
        Just("\\pm".to_owned()),
        Just("\\infty".to_owned()),
        Just("\\text{ and }".to_owned()),
        Just("\\sin".to_owned()),
        Just("\\log_".to_owned()),
        "[-+*/^_!%=<>(),;:|$\\[\\]{}&\\\\. ]{1,3}",
        "[0-9]{1,5}",
        "[a-zA-Z]{1,5} ?",
        "[π√∞∪≤≥±²½°×÷٣]{1,2}",
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(fragment, 1..32).prop_map(|fragments| fragments.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_text_has_a_verdict(reference in fragments(), response in prop_oneof![any::<String>(), fragments()]) {
        let verifier = verifier();
        for response in [response.clone(), format!("\\boxed{{{response}}}")] {
            let verdict = verdict(&verifier, &reference, &response);
            prop_assert!(["0", "1", "undecided", "bad_reference", "empty_reference"].contains(&verdict));
        }
    }

    /// What can be read is itself, `0 < ∞` too; `undecided` where a value is beyond what is
    /// computed or has none.
    #[test]
    fn what_is_read_is_itself(text in "([-+*/^_!%=<>(),;|\\[\\] ]{1,2}([0-9]{1,3}|[a-z]|π|√|∞|²|½)){1,10}[)!%]?") {
        let verdict = verdict(&verifier(), &text, &format!("\\boxed{{{text}}}"));
        prop_assert!(verdict != "0", "{:?}", text);
    }
}
