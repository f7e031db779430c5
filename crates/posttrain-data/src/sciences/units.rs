//! Units of the SI, and turning one unit into another.

use super::fact::Fact;
use super::relation::fill;
use super::tables::{self, Unit, is_unique};
use super::topic::Topic;
use crate::DataError;

/// Spelt "meter" in American English: asked from, never for.
const SPELT_TWO_WAYS: &str = "metre";

/// How many small units make a large one, and how the small, the large and the amount of the large
/// are called.
const CONVERSIONS: [(u32, &str, &str); 14] = [
    (1000, "metres", "kilometres"),
    (100, "centimetres", "metres"),
    (10, "millimetres", "centimetres"),
    (1000, "millimetres", "metres"),
    (1000, "grams", "kilograms"),
    (1000, "kilograms", "tonnes"),
    (1000, "milligrams", "grams"),
    (1000, "millilitres", "litres"),
    (60, "seconds", "minutes"),
    (60, "minutes", "hours"),
    (24, "hours", "days"),
    (7, "days", "weeks"),
    (1000, "joules", "kilojoules"),
    (1000, "watts", "kilowatts"),
];

pub(super) fn topics() -> Result<Vec<Topic>, DataError> {
    let units = tables::units()?;
    let facts = units.iter().map(|unit| fact(unit, &units)).collect();
    Ok(vec![
        Topic { name: "unit", questions: 190, facts },
        Topic { name: "convert", questions: 150, facts: conversions() },
    ])
}

/// A quantity, its unit and the unit's symbol are one fact, in whatever direction.
fn fact(row: &Unit, all: &[Unit]) -> Fact {
    let Unit { quantity, unit, symbol } = row;
    let names = [
        format!("What is the SI unit of {quantity}?"),
        format!("In which SI unit is {quantity} measured?"),
    ];
    let symbols = [
        format!("What is the symbol of the SI unit of {quantity}?"),
        format!("What is the symbol of the unit {unit}?"),
        format!("Which symbol stands for the SI unit {unit}?"),
    ];
    let backward = [
        format!("Which SI unit has the symbol {symbol}?"),
        format!("Name the SI unit whose symbol is {symbol}."),
    ];

    let nameable = unit != SPELT_TWO_WAYS;
    // Second and siemens differ in the symbol's case only.
    let clear = is_unique(all, |unit| &unit.symbol, symbol);

    Fact::new(format!("natural/unit/{unit}"))
        .ask_if(nameable, unit, names)
        .ask(symbol, symbols)
        .ask_if(nameable && clear, unit, backward)
}

fn conversions() -> Vec<Fact> {
    let amounts =
        CONVERSIONS.iter().flat_map(|conversion| (2..=12).map(move |large| (conversion, large)));

    let fact = |(&(factor, small_unit, large_unit), large): (&(u32, &str, &str), u32)| {
        let numbers = [("{small}", factor * large), ("{large}", large)];
        let down = format!("How many {small_unit} are {{large}} {large_unit}?");
        let up = format!("How many {large_unit} are {{small}} {small_unit}?");
        let turn = format!("Convert {{large}} {large_unit} to {small_unit}.");
        Fact::new(format!("natural/convert/{large_unit}-{small_unit}/{large}"))
            .ask(factor * large, [fill(&down, numbers), fill(&turn, numbers)])
            .ask(large, [fill(&up, numbers)])
    };

    amounts.map(fact).collect()
}
