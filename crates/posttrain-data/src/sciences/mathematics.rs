//! Mathematics: arithmetic of small numbers, directly, in equations, in series and in words.

use super::fact::Fact;
use super::topic::Topic;

/// More than half of the questions are plain sums, differences, products and quotients.
pub(super) fn topics() -> Vec<Topic> {
    let topic = |name, questions, facts| Topic { name, questions, facts };
    vec![
        topic("add", 600, sums(direct_sum)),
        topic("sub", 350, differences(direct_difference)),
        topic("mul", 600, products(direct_product)),
        topic("div", 100, quotients()),
        topic("sum-in-words", 60, in_words(sums(sum_in_words))),
        topic("difference-in-words", 60, in_words(differences(difference_in_words))),
        topic("product-in-words", 30, in_words(products(product_in_words))),
        topic("solve", 150, equations()),
        topic("double", 50, doubles()),
        topic("next", 100, series()),
        topic("compare", 550, comparisons()),
        topic("compare-three", 350, comparisons_of_three()),
    ]
}

/// One group for `a + b` and `b + a`.
fn sum_group(a: u32, b: u32) -> String {
    format!("math/add/{}+{}", a.min(b), a.max(b))
}

/// One group for `a * b` and `b * a`.
fn product_group(a: u32, b: u32) -> String {
    format!("math/mul/{}*{}", a.min(b), a.max(b))
}

fn quotient_group(dividend: u32, divisor: u32) -> String {
    format!("math/div/{dividend}/{divisor}")
}

/// Of numbers up to 20, one of them of a single digit.
fn sums(questions: fn(u32, u32) -> Vec<String>) -> Vec<Fact> {
    let pairs = (1..=9).flat_map(|a| (a..=20).map(move |b| (a, b)));
    pairs.map(|(a, b)| Fact::new(sum_group(a, b)).ask(a + b, both_ways(a, b, questions))).collect()
}

/// Of numbers up to 20, the larger first.
fn differences(questions: fn(u32, u32) -> Vec<String>) -> Vec<Fact> {
    let pairs = (2..=20).flat_map(|a| (1..=a).map(move |b| (a, b)));
    pairs.map(|(a, b)| Fact::new(format!("math/sub/{a}-{b}")).ask(a - b, questions(a, b))).collect()
}

/// Of a number up to 20 and a single digit.
fn products(questions: fn(u32, u32) -> Vec<String>) -> Vec<Fact> {
    let pairs = (1..=9).flat_map(|a| (a..=20).map(move |b| (a, b)));
    pairs
        .map(|(a, b)| Fact::new(product_group(a, b)).ask(a * b, both_ways(a, b, questions)))
        .collect()
}

fn both_ways(a: u32, b: u32, questions: fn(u32, u32) -> Vec<String>) -> Vec<String> {
    let mut both = questions(a, b);
    if a != b {
        both.extend(questions(b, a));
    }
    both
}

fn direct_sum(a: u32, b: u32) -> Vec<String> {
    direct(a, b, "+", "plus")
}

fn direct_difference(a: u32, b: u32) -> Vec<String> {
    direct(a, b, "-", "minus")
}

fn direct_product(a: u32, b: u32) -> Vec<String> {
    direct(a, b, "*", "times")
}

/// Measured at temperature 1, these are understood best: 0.19 right for "What is 7 + 5?", 0.11 for
/// "7 + 5 = ?".
fn direct(a: u32, b: u32, sign: &str, word: &str) -> Vec<String> {
    vec![
        format!("What is {a} {sign} {b}?"),
        format!("Calculate {a} {sign} {b}."),
        format!("What is {a} {word} {b}?"),
    ]
}

fn quotients() -> Vec<Fact> {
    let pairs =
        (2..=9).flat_map(|divisor| (1..=12).map(move |quotient| (divisor * quotient, divisor)));

    let fact = |(dividend, divisor): (u32, u32)| {
        let mut questions = direct(dividend, divisor, "/", "divided by");
        let (_, thing) = cast(dividend, divisor);
        questions.push(format!(
            "{dividend} {thing} are shared equally among {divisor} children. How many {thing} does each child get?"
        ));
        Fact::new(quotient_group(dividend, divisor)).ask(dividend / divisor, questions)
    };

    pairs.map(fact).collect()
}

/// Who has what in a word problem: the same for the same numbers, and different for neighbors.
fn cast(a: u32, b: u32) -> (&'static str, &'static str) {
    const NAMES: [&str; 7] = ["Anna", "Ben", "Carla", "David", "Emma", "Farid", "Grace"];
    const THINGS: [&str; 6] = ["apples", "books", "coins", "marbles", "pencils", "stamps"];
    (NAMES[(3 * a + b) as usize % NAMES.len()], THINGS[(a + 2 * b) as usize % THINGS.len()])
}

/// Without those about one apple, which would need other words.
fn in_words(mut facts: Vec<Fact>) -> Vec<Fact> {
    for fact in &mut facts {
        fact.asks.retain(|ask| !ask.question.split(' ').any(|word| word == "1"));
    }
    facts
}

fn sum_in_words(a: u32, b: u32) -> Vec<String> {
    let (name, thing) = cast(a, b);
    vec![
        format!("{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?"),
        format!(
            "One box holds {a} {thing} and another holds {b}. How many {thing} are there in all?"
        ),
    ]
}

fn difference_in_words(a: u32, b: u32) -> Vec<String> {
    let (name, thing) = cast(a, b);
    vec![
        format!(
            "{name} has {a} {thing} and gives away {b} of them. How many {thing} does {name} have left?"
        ),
        format!("A shop had {a} {thing} and sold {b} of them. How many {thing} are left?"),
    ]
}

fn product_in_words(a: u32, b: u32) -> Vec<String> {
    let (name, thing) = cast(a, b);
    vec![
        format!("{name} fills {a} bags with {b} {thing} each. How many {thing} are there in all?"),
        format!("A ticket costs {a} dollars. How many dollars does {name} pay for {b} tickets?"),
    ]
}

/// `x + a = c`, `x - a = c` and `a * x = c`.
fn equations() -> Vec<Fact> {
    let pairs = || (1..=9_u32).flat_map(|a| (1..=10_u32).map(move |x| (a, x)));
    let sum =
        |(a, x)| equation(x, &[format!("x + {a} = {}", x + a), format!("{a} + x = {}", x + a)]);
    let difference = |(a, c)| equation(c + a, &[format!("x - {a} = {c}")]);
    let product =
        |(a, x)| equation(x, &[format!("{a} * x = {}", a * x), format!("{a}x = {}", a * x)]);

    let products = pairs().filter(|&(a, _)| a > 1).map(product);
    pairs().map(sum).chain(pairs().map(difference)).chain(products).collect()
}

/// The forms are ways of writing one equation.
fn equation(x: u32, forms: &[String]) -> Fact {
    let group = format!("math/solve/{}", forms[0].replace(' ', ""));
    let ask = |form: &String| [format!("Solve for x: {form}."), format!("If {form}, what is x?")];
    Fact::new(group).ask(x, forms.iter().flat_map(ask))
}

/// Doubles and halves, in the groups of their product and quotient.
fn doubles() -> Vec<Fact> {
    let double = |n: u32| {
        let questions = [format!("What is double {n}?"), format!("What is twice {n}?")];
        Fact::new(product_group(2, n)).ask(2 * n, questions)
    };
    let half = |n: u32| {
        let questions =
            [format!("What is half of {}?", 2 * n), format!("What is one half of {}?", 2 * n)];
        Fact::new(quotient_group(2 * n, 2)).ask(n, questions)
    };

    (1..=25).map(double).chain((1..=25).map(half)).collect()
}

/// The neighbors of a number, and series of small steps.
fn series() -> Vec<Fact> {
    let after = |n: u32| {
        let questions = [
            format!("What number comes right after {n}?"),
            format!("Which whole number follows {n}?"),
        ];
        Fact::new(format!("math/next/{n}+1")).ask(n + 1, questions)
    };
    let before = |n: u32| {
        let questions = [
            format!("What number comes right before {n}?"),
            format!("Which whole number precedes {n}?"),
        ];
        Fact::new(format!("math/next/{n}-1")).ask(n - 1, questions)
    };

    let steps = (1..=10).flat_map(|start| [1, 2, 5, 10].map(|step| (start, step)));
    (1..=40).map(after).chain((1..=40).map(before)).chain(steps.map(continuation)).collect()
}

fn continuation((start, step): (u32, u32)) -> Fact {
    let shown: Vec<String> = (0..4).map(|n| (start + n * step).to_string()).collect();
    let shown = shown.join(", ");
    let questions = [
        format!("What number comes next: {shown}?"),
        format!("What is the next number in the sequence {shown}?"),
    ];
    Fact::new(format!("math/series/{start}+{step}")).ask(start + 4 * step, questions)
}

fn comparisons() -> Vec<Fact> {
    let pairs = (1..=30).flat_map(|a| (a + 1..=30).map(move |b| (a, b)));
    let fact = |(a, b): (u32, u32)| {
        let larger = "Which number is larger";
        let smaller = "Which number is smaller";
        Fact::new(format!("math/compare/{a},{b}"))
            .ask(b, [format!("{larger}, {a} or {b}?"), format!("{larger}, {b} or {a}?")])
            .ask(a, [format!("{smaller}, {a} or {b}?"), format!("{smaller}, {b} or {a}?")])
    };

    pairs.map(fact).collect()
}

fn comparisons_of_three() -> Vec<Fact> {
    let gaps = || (1..=5).flat_map(|first| (1..=4).map(move |second| (first, second)));
    let triples = (1..=12)
        .flat_map(|a| gaps().map(move |(first, second)| (a, a + first, a + first + second)));
    let fact = |(a, b, c): (u32, u32, u32)| {
        let largest = "Which number is the largest";
        let smallest = "Which number is the smallest";
        Fact::new(format!("math/compare/{a},{b},{c}"))
            .ask(
                c,
                [format!("{largest}: {b}, {c} or {a}?"), format!("{largest}: {c}, {a} or {b}?")],
            )
            .ask(
                a,
                [format!("{smallest}: {b}, {a} or {c}?"), format!("{smallest}: {c}, {b} or {a}?")],
            )
    };

    triples.map(fact).collect()
}
