//! Which option a response chooses.

// Functions outside #[test] unwrap, too.
#![allow(clippy::unwrap_used)]

use posttrain_answer::AnswerError;
use posttrain_answer::choice::{Choice, Options};

const QUESTION: &str = "Capital of France?\nA) London\nB) Paris\nC) Rome\nD) Paris, Texas";

fn is_right(question: &str, reference: &str, response: &str) -> bool {
    let options = Options::in_question(question);
    Choice::default().compare(reference, response, &options).unwrap().verdict().is_same()
}

#[test]
fn right_choices() {
    let responses = [
        "B",
        "b",
        "(B)",
        "B.",
        "B)",
        "**B**",
        "B) Paris",
        "(B) Paris",
        "B. Paris",
        "Paris",
        "paris.",
        "Answer: B",
        "The answer is B.",
        "The answer is (B) Paris.",
        "The correct answer is **B**.",
        "The answer is B because A is in England.",
        "The answer is option B.",
        "The answer is Paris.",
        "It is Paris.",
        r"\boxed{B}",
        r"\boxed{\text{B}}",
        r"\boxed{\text{(B) Paris}}",
        r"\boxed{\text{Paris}}",
        "#### B",
        "London is in England, so A is out. I choose (B).",
        "I ruled out A and C so I choose (B).",
        "A is wrong. The answer is B",
        "A) London: no.\nC) Rome: no.\n\nSo it must be option B.",
        "It is not A, it is B.",
        "<think>A or C?</think>B",
    ];
    for response in responses {
        assert!(is_right(QUESTION, "B", response), "{response}");
    }
}

#[test]
fn what_earns_nothing() {
    let responses = [
        "A",
        "C",
        "A or B",
        "B or C",
        "A, B",
        "(A) and (B)",
        "The answer is A or B.",
        "The answer is B or C.",
        "The answer is not B.",
        "It is not B.",
        "(B) London",
        "B. Rome",
        "London",
        "Paris, Texas",
        "Paris or London",
        "B, no: C",
        "E",
        "Bob",
        "A capital of France",
        "",
        "<think>B",
        r"\boxed{A, B}",
        r"\boxed{B} or rather \boxed{C}",
        "I do not know",
        "(B) is wrong",
        "I would rule out (B)",
        "All but B",
    ];
    for response in responses {
        assert!(!is_right(QUESTION, "B", response), "{response}");
    }
}

#[test]
fn to_say_the_question_again_is_no_answer() {
    for list in [
        "A) London\nB) Paris\nC) Rome",
        "(A) London (B) Paris (C) Rome",
        "A. London, B. Paris, C. Rome",
    ] {
        for response in
            [list.to_owned(), format!("{QUESTION}\n{list}"), format!("Let me see.\n{list}\n")]
        {
            assert!(!is_right(QUESTION, "C", &response), "{response}");
        }
        assert!(is_right(QUESTION, "C", &format!("{list}\nIt is C.")), "{list}");
    }
    assert!(!is_right(QUESTION, "D", QUESTION));
    assert!(is_right(QUESTION, "B", "A) London is too far north.\nB) Paris"));
}

#[test]
fn the_reference_may_be_a_text() {
    assert!(is_right(QUESTION, "Paris", "B"));
    assert!(is_right(QUESTION, "(b)", "The answer is B"));
    assert!(is_right("?", "A", "The answer is A."));
    assert!(!is_right("?", "A", "A cat is an animal."));
    let error = |reference: &str| {
        let options = Options::in_question(QUESTION);
        Choice::default().compare(reference, "B", &options).unwrap_err()
    };
    assert!(matches!(error("E"), AnswerError::BadReference { .. }));
    assert!(matches!(error("Berlin"), AnswerError::BadReference { .. }));
    assert_eq!(error(" "), AnswerError::EmptyReference);
}

#[test]
fn a_lower_case_letter_is_a_choice_where_something_says_so() {
    let right = [
        ("C", "ANSWER: c"),
        ("C", "Answer: c."),
        ("C", "the answer is c"),
        ("C", "The answer is option c, since it is largest."),
        ("C", "The correct answer is (c)"),
        ("C", "I choose c."),
        ("C", "So it must be choice c"),
        ("C", "I would say (c)."),
        ("C", "**c**"),
        ("A", "ANSWER: a"),
        ("A", "The answer is (a) London."),
        ("A", "The answer is A because London is large."),
    ];
    for (reference, response) in right {
        assert!(is_right(QUESTION, reference, response), "{response}");
    }
    let wrong = [
        ("A", "The answer is a city in France"),
        ("A", "I pick a winner"),
        ("A", "Answer: a large one"),
        ("I", "The answer is i think"),
        ("C", "f(c) is large"),
        ("C", "It has a c in it"),
        ("C", "ANSWER: c or b"),
        ("C", "The answer is not c"),
        ("C", "a) London b) Paris c) Rome"),
        ("C", "(a) London (b) Paris (c) Rome"),
    ];
    for (reference, response) in wrong {
        assert!(
            !is_right(
                "Which?\nA) London\nB) Paris\nC) Rome\nD) x\nE) x\nF) x\nG) x\nH) x\nI) y",
                reference,
                response
            ),
            "{response}"
        );
    }
}

#[test]
fn a_letter_may_touch_the_signs_of_a_script_without_blanks() {
    let right = [
        ("B", "故选B。"),
        ("B", "故选：B"),
        ("B", "所以答案是B。"),
        ("A", "故选A。"),
        ("A", "答案为A，因为伦敦很大"),
        ("B", "答案：（B）"),
        ("B", "答案是Ｂ。"),
        ("B", "正解はBです。"),
        ("B", "정답은 B입니다."),
        ("B", "答案不是C，而是B。"),
        ("B", "答案不是C而是B。"),
        ("B", "选B，不选C。"),
        ("B", "不难看出答案是B"),
    ];
    for (reference, response) in right {
        assert!(is_right(QUESTION, reference, response), "{response}");
    }
    let wrong = [
        ("B", "不是B。"),
        ("B", "答案不是B"),
        ("B", "不选B"),
        ("B", "排除B"),
        ("B", "选项B不正确"),
        ("B", "B错误"),
        ("B", "选A或B"),
        ("C", "答案不是C而是B。"),
        ("B", "正解はBではない。"),
    ];
    for (reference, response) in wrong {
        assert!(!is_right(QUESTION, reference, response), "{response}");
    }
}

/// Signs of two to four bytes on either side of a letter, in either case and in brackets.
#[test]
fn a_letter_may_touch_any_sign() {
    let signs = ["㄂", "é", "。", "\u{10FFFF}", "（", "\u{0}", "’", "答", "\u{301}", ""];
    for before in signs {
        for after in signs {
            for letter in ["b", "B", "(b)", "(B)", "[b]", "*b*", "option b", "故选b"] {
                let response = format!("{before}{letter}{after}");
                let cued = format!("答案{response}");
                for response in [&response, &cued, &format!("The answer is {response}")] {
                    // Whatever it is taken for, it is taken for something.
                    let _ = is_right(QUESTION, "B", response);
                }
            }
        }
    }
}

#[test]
fn what_is_denied_is_corrected() {
    let right = [
        "The answer is not C but B.",
        "The answer is not (C), but (B).",
        "The answer is neither A nor C but B.",
        "Not C but B.",
        "It's not C but B",
        "The answer is B, not C.",
        "I say B rather than C",
        "B, not C",
    ];
    for response in right {
        assert!(is_right(QUESTION, "B", response), "{response}");
        assert!(!is_right(QUESTION, "C", response), "{response}");
    }
    for response in
        ["The answer is not B", "The answer is not A or C but B or D.", "B, no: C", "not B, not C"]
    {
        assert!(!is_right(QUESTION, "B", response), "{response}");
    }
}

#[test]
fn hostile_text_ends() {
    for fragment in [
        "(",
        "A ",
        "A or ",
        "\\",
        "{",
        "\\boxed{",
        "A)\n",
        "is A. ",
        "é",
        "巴B",
        "not A but ",
        "option a ",
    ] {
        let text = fragment.repeat(60_000 / fragment.len());
        assert!(!is_right(QUESTION, "B", &text) || fragment == "巴B", "{fragment}");
        let _ = Choice::default().compare("B", "B", &Options::in_question(&text));
        let _ =
            Choice::default().compare("B", &format!("The answer is {text}"), &Options::unknown());
    }
    assert!(Choice { max_bytes: 0, ..Choice::default() }.validate().is_err());
}
