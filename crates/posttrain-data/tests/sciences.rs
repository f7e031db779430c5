//! What the built-in set promises.
#![allow(clippy::unwrap_used)] // the helpers of tests are tests

use std::collections::{BTreeMap, BTreeSet, HashMap};

use posttrain_data::sciences::{DOMAINS, MATH, NATURAL, QUESTIONS, SOCIAL, generate};
use posttrain_data::{Dataset, Example, normalize_question};

fn dataset() -> Dataset {
    generate(7).unwrap()
}

#[test]
fn each_domain_has_its_number_of_different_questions() {
    let dataset = dataset();
    for domain in DOMAINS {
        let questions: BTreeSet<_> =
            dataset.domain(domain).map(|e| normalize_question(&e.question)).collect();
        assert_eq!(questions.len(), QUESTIONS, "{domain}");
        const { assert!(QUESTIONS >= 2500) };
    }
}

#[test]
fn each_domain_has_many_facts_asked_in_several_ways() {
    let dataset = dataset();
    for (domain, facts) in [(MATH, 800), (NATURAL, 1000), (SOCIAL, 1000)] {
        let mut rows: BTreeMap<&str, u32> = BTreeMap::new();
        dataset.domain(domain).for_each(|example| *rows.entry(&example.group).or_default() += 1);
        assert!(rows.len() >= facts, "{domain}: {} facts", rows.len());
        let several = rows.values().filter(|&&count| count > 1).count();
        assert!(
            several * 2 > rows.len(),
            "{domain}: {several} of {} facts asked in several ways",
            rows.len()
        );
    }
}

#[test]
fn most_of_the_mathematics_is_plain_arithmetic() {
    let dataset = dataset();
    let plain = |example: &&Example| {
        ["#add-", "#sub-", "#mul-", "#div-"].iter().any(|topic| example.id.contains(topic))
    };
    let share = dataset.domain(MATH).filter(plain).count() as f64 / QUESTIONS as f64;
    assert!((0.5..0.6).contains(&share), "{share}");
}

#[test]
fn questions_are_short_and_answers_are_checkable() {
    for example in dataset().examples() {
        let question = &example.question;
        assert!(question.len() < 160 && question.ends_with(['?', '.']), "{question}");
        assert!(!question.contains("  ") && !question.contains(['{', '}']), "{question}");
        let sentences = question.matches(['.', '?']).count();
        assert!((1..=2).contains(&sentences) || question.contains("St."), "{question}");
        let answer = &example.answer;
        assert!(answer.len() <= 40 && answer.trim() == answer, "{answer}");
        let plain = answer.is_ascii() || answer == "Ω";
        assert!(plain, "{question} {answer}");
    }
}

#[test]
fn no_question_has_two_answers() {
    let mut answers: HashMap<String, String> = HashMap::new();
    for seed in 0..4 {
        for Example { question, answer, .. } in generate(seed).unwrap().into_examples() {
            let known =
                answers.entry(normalize_question(&question)).or_insert_with(|| answer.clone());
            assert_eq!(*known, answer, "{question}");
        }
    }
}

#[test]
fn the_seed_decides() {
    assert_eq!(generate(7).unwrap(), generate(7).unwrap());
    assert_ne!(generate(7).unwrap(), generate(8).unwrap());
}

/// The arithmetic is worked out again from the questions.
#[test]
fn answers_of_the_arithmetic_are_right() {
    let mut checked = 0;
    for example in dataset().domain(MATH) {
        let words: Vec<&str> = example.question.split([' ', '?', '.']).collect();
        for window in words.windows(3) {
            let (Ok(a), Ok(b)) = (window[0].parse::<i64>(), window[2].parse::<i64>()) else {
                continue;
            };
            let result = match window[1] {
                "+" | "plus" => a + b,
                "-" | "minus" => a - b,
                "*" | "times" => a * b,
                "/" => a / b,
                _ => continue,
            };
            assert_eq!(example.answer, result.to_string(), "{}", example.question);
            checked += 1;
        }
    }
    assert!(checked >= 1500, "{checked}");
}

#[test]
fn equations_hold() {
    let mut checked = 0;
    for example in dataset().domain(MATH).filter(|example| example.group.starts_with("math/solve/"))
    {
        let x: i64 = example.answer.parse().unwrap();
        let (left, right) = example.group["math/solve/".len()..].split_once('=').unwrap();
        let value =
            match (left.strip_prefix("x+"), left.strip_prefix("x-"), left.strip_suffix("*x")) {
                (Some(a), ..) => x + a.parse::<i64>().unwrap(),
                (_, Some(a), _) => x - a.parse::<i64>().unwrap(),
                (_, _, Some(a)) => x * a.parse::<i64>().unwrap(),
                _ => panic!("{left}"),
            };
        assert_eq!(value, right.parse::<i64>().unwrap(), "{}", example.question);
        checked += 1;
    }
    assert!(checked >= 100, "{checked}");
}

fn answer_to<'a>(all: &'a [Example], question: &str) -> Option<&'a str> {
    all.iter().find(|example| example.question == question).map(|example| example.answer.as_str())
}

#[test]
fn facts_worked_out_by_hand() {
    // Enough seeds that every question has been chosen by one of them.
    let all: Vec<Example> =
        (0..6).flat_map(|seed| generate(seed).unwrap().into_examples()).collect();
    for (question, answer) in [
        ("What is the chemical symbol of Iron?", "Fe"),
        ("How many protons does an atom of Oxygen have?", "8"),
        ("What is the capital of France?", "Paris"),
        ("Which country has the capital Nairobi?", "Kenya"),
        ("What is the two-letter postal code of the US state of Texas?", "TX"),
        ("How many hydrogen atoms are in one molecule of C6H12O6?", "12"),
        ("What is the SI unit of force?", "newton"),
    ] {
        assert_eq!(answer_to(&all, question), Some(answer), "{question}");
    }
}

#[test]
fn ambiguous_questions_are_not_asked() {
    let all: Vec<Example> =
        (0..6).flat_map(|seed| generate(seed).unwrap().into_examples()).collect();
    for question in [
        "In which country is the Euro the currency?",
        "What is the capital of Bolivia?",
        "What is the capital of South Africa?",
        "Which country has the international calling code 7?",
        "Which SI unit has the symbol S?",
        "Which SI unit has the symbol s?",
        "What is the capital of Georgia?",
        "On which continent is Turkey?",
        "What is the SI unit of length?",
        "In which group of the periodic table, from 1 to 18, is Lanthanum?",
        "Which element has the chemical symbol Al?",
    ] {
        assert_eq!(answer_to(&all, question), None, "{question}");
    }
}
