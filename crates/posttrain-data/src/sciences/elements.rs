//! The chemical elements.

use super::fact::Fact;
use super::tables::{self, Element};
use super::topic::Topic;
use crate::DataError;

/// Names that are spelt differently in British and American English are asked from, never for.
const SPELT_TWO_WAYS: [&str; 3] = ["Al", "S", "Cs"];
/// Chemists do not agree whether lanthanum and actinium or lutetium and lawrencium stand in group 3
/// and the d block.
const CONTESTED_PLACE: [&str; 4] = ["La", "Ac", "Lu", "Lr"];
/// The series whose members nobody disputes, among the elements up to nobelium.
const CLEAR_SERIES: [&str; 6] =
    ["alkali metal", "alkaline earth metal", "halogen", "noble gas", "lanthanide", "actinide"];
const LAST_OF_CLEAR_SERIES: u32 = 102;

pub(super) fn topics() -> Result<Vec<Topic>, DataError> {
    let elements = tables::elements()?;
    let topic = |name, questions, fact: fn(&Element) -> Option<Fact>| {
        let facts = elements.iter().filter_map(fact).collect();
        Topic { name, questions, facts }
    };

    Ok(vec![
        topic("symbol", 580, symbol),
        topic("atomic-number", 260, atomic_number),
        topic("period", 340, period),
        topic("group", 120, group),
        topic("block", 330, block),
        topic("phase", 290, phase),
        topic("series", 140, series),
    ])
}

fn fact(element: &Element, property: &str) -> Fact {
    Fact::new(format!("natural/element/{}/{property}", element.symbol))
}

fn symbol(element: &Element) -> Option<Fact> {
    let Element { symbol, name, .. } = element;
    let forward = [
        format!("What is the chemical symbol of {name}?"),
        format!("What is the symbol for the element {name}?"),
        format!("Which symbol stands for {name} in the periodic table?"),
    ];
    let backward = [
        format!("Which element has the chemical symbol {symbol}?"),
        format!("Name the element whose symbol is {symbol}."),
    ];

    let nameable = !SPELT_TWO_WAYS.contains(&symbol.as_str());
    Some(fact(element, "symbol").ask(symbol, forward).ask_if(nameable, name, backward))
}

fn atomic_number(element: &Element) -> Option<Fact> {
    let Element { symbol, name, atomic_number, .. } = element;
    let forward = [
        format!("What is the atomic number of {name}?"),
        format!("How many protons does an atom of {name} have?"),
        format!("How many electrons does a neutral atom of {name} have?"),
        format!("Which atomic number does the element {name} have?"),
    ];
    let backward = [
        format!("Which element has the atomic number {atomic_number}?"),
        format!("Name the element whose atoms have {atomic_number} protons."),
    ];

    // "1 protons" is no English.
    let nameable = *atomic_number > 1 && !SPELT_TWO_WAYS.contains(&symbol.as_str());
    Some(
        fact(element, "atomic_number").ask(atomic_number, forward).ask_if(nameable, name, backward),
    )
}

fn period(element: &Element) -> Option<Fact> {
    let Element { name, period, .. } = element;
    let questions = [
        format!("In which period of the periodic table is {name}?"),
        format!("What is the period number of the element {name}?"),
        format!("To which period of the periodic table does {name} belong?"),
    ];
    Some(fact(element, "period").ask(period, questions))
}

fn group(element: &Element) -> Option<Fact> {
    let Element { symbol, name, group, .. } = element;
    let questions = [
        format!("In which group of the periodic table, from 1 to 18, is {name}?"),
        format!("What is the group number, from 1 to 18, of the element {name}?"),
    ];

    let known = !group.is_empty() && !CONTESTED_PLACE.contains(&symbol.as_str());
    known.then(|| fact(element, "group").ask(group, questions))
}

fn block(element: &Element) -> Option<Fact> {
    let Element { symbol, name, block, .. } = element;
    let questions = [
        format!("In which block of the periodic table (s, p, d or f) is {name}?"),
        format!("Does {name} belong to the s, p, d or f block?"),
        format!("To which block, s, p, d or f, does the element {name} belong?"),
    ];

    let known = !block.is_empty() && !CONTESTED_PLACE.contains(&symbol.as_str());
    known.then(|| fact(element, "block").ask(block, questions))
}

fn phase(element: &Element) -> Option<Fact> {
    let Element { name, phase_at_25c: phase, .. } = element;
    let questions = [
        format!("Is {name} a solid, a liquid or a gas at 25 degrees Celsius?"),
        format!("At room temperature, is the element {name} solid, liquid or gas?"),
        format!("In which state of matter is {name} at 25 degrees Celsius?"),
    ];
    (!phase.is_empty()).then(|| fact(element, "phase").ask(phase, questions))
}

fn series(element: &Element) -> Option<Fact> {
    let Element { symbol, name, series, .. } = element;
    let choice = CLEAR_SERIES.join(", ");
    let questions = [
        format!("To which of these does {name} belong: {choice}?"),
        format!("Which of these is {name}: {choice}?"),
        format!("{name} is one of these: {choice}. Which?"),
    ];

    let known = CLEAR_SERIES.contains(&series.as_str())
        && element.atomic_number <= LAST_OF_CLEAR_SERIES
        && !CONTESTED_PLACE.contains(&symbol.as_str());
    known.then(|| fact(element, "series").ask(series, questions))
}
