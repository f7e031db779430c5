//! The states of the USA: capitals and postal codes.

use super::fact::Fact;
use super::tables::{self, State, is_unique};
use super::topic::Topic;
use crate::DataError;

pub(super) fn topic() -> Result<Topic, DataError> {
    let states = tables::states()?;
    let facts = states.iter().flat_map(|state| [capital(state, &states), code(state)]).collect();
    Ok(Topic { name: "states", questions: 420, facts })
}

fn capital(state: &State, all: &[State]) -> Fact {
    let State { code, name, capital } = state;
    let forward = [
        format!("What is the capital of the US state of {name}?"),
        format!("Which city is the capital of {name} in the United States?"),
        format!("Name the capital city of the US state {name}."),
    ];
    let backward = [
        format!("Which US state has the capital {capital}?"),
        format!("{capital} is the capital of which US state?"),
    ];

    // Oklahoma City and Indianapolis give the answer away.
    let clear = !capital.contains(name.as_str()) && is_unique(all, |other| &other.capital, capital);

    Fact::new(format!("social/state/{code}/capital"))
        .ask(capital, forward)
        .ask_if(clear, name, backward)
}

fn code(state: &State) -> Fact {
    let State { code, name, .. } = state;
    let forward = [
        format!("What is the two-letter postal code of the US state of {name}?"),
        format!("How is the US state {name} abbreviated with two letters?"),
    ];
    let backward = [
        format!("Which US state has the two-letter postal code {code}?"),
        format!("Name the US state that is abbreviated {code}."),
    ];
    Fact::new(format!("social/state/{code}/code")).ask(code, forward).ask(name, backward)
}
