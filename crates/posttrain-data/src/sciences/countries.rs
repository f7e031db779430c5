//! Countries: capitals, continents, currencies, languages, codes.

use super::fact::Fact;
use super::tables::{self, Country, is_unique};
use super::topic::Topic;
use crate::DataError;

/// Countries that go by several names, or by a name with an article: asked from, never for.
const ALSO_CALLED: [&str; 30] = [
    "AE", "AG", "BA", "BS", "CD", "CF", "CG", "CI", "CV", "CZ", "DO", "FM", "GB", "GM", "KM", "KN",
    "KP", "KR", "LC", "MH", "MK", "MM", "MV", "NL", "PS", "ST", "SZ", "TL", "US", "VC",
];
/// Besides those above: the Vatican, Turkey and the Philippines.
const ALSO_CALLED_TOO: [&str; 5] = ["VA", "TR", "PH", "SB", "SC"];
/// Names that take an article in a sentence.
const WITH_ARTICLE: [&str; 17] = [
    "AE", "BS", "CD", "CF", "CG", "DO", "GB", "GM", "KM", "MH", "MV", "NL", "PH", "PS", "SB", "SC",
    "US",
];

pub(super) fn topics() -> Result<Vec<Topic>, DataError> {
    let countries = tables::countries()?;
    let topic = |name, questions, fact: fn(&Country, &[Country]) -> Option<Fact>| {
        let facts = countries.iter().filter_map(|country| fact(country, &countries)).collect();
        Topic { name, questions, facts }
    };

    Ok(vec![
        topic("capital", 700, capital),
        topic("continent", 560, continent),
        topic("currency", 260, currency),
        topic("currency-code", 80, currency_code),
        topic("language", 360, language),
        topic("calling-code", 60, calling_code),
        topic("two-letter-code", 60, two_letter_code),
        topic("three-letter-code", 60, three_letter_code),
    ])
}

fn fact(country: &Country, property: &str) -> Fact {
    Fact::new(format!("social/country/{}/{property}", country.iso2))
}

/// The name as it stands in a sentence.
fn in_sentence(country: &Country) -> String {
    let name = country.name.trim_start_matches("The ");
    match country.iso2.as_str() {
        // There is a US state of the same name.
        "GE" => "the country Georgia".to_owned(),
        code if WITH_ARTICLE.contains(&code) => format!("the {name}"),
        _ => name.to_owned(),
    }
}

/// Whether the country's name can be an answer.
fn is_nameable(country: &Country) -> bool {
    let code = country.iso2.as_str();
    !ALSO_CALLED.contains(&code) && !ALSO_CALLED_TOO.contains(&code) && country.name.is_ascii()
}

fn capital(country: &Country, all: &[Country]) -> Option<Fact> {
    let Country { name, capital, .. } = country;
    let place = in_sentence(country);
    let forward = [
        format!("What is the capital of {place}?"),
        format!("Which city is the capital of {place}?"),
        format!("Name the capital city of {place}."),
    ];
    let backward = [
        format!("Which country has the capital {capital}?"),
        format!("{capital} is the capital of which country?"),
    ];

    // A city that carries its country's name gives the answer away.
    let clear = is_nameable(country)
        && !capital.contains(name)
        && is_unique(all, |other| &other.capital, capital);

    (!capital.is_empty())
        .then(|| fact(country, "capital").ask(capital, forward).ask_if(clear, name, backward))
}

fn continent(country: &Country, _: &[Country]) -> Option<Fact> {
    let place = in_sentence(country);
    let continent = &country.continent;
    let questions = [
        format!("On which continent is {place}?"),
        format!("Which continent does {place} belong to?"),
        format!("Name the continent on which {place} lies."),
    ];
    (!continent.is_empty()).then(|| fact(country, "continent").ask(continent, questions))
}

fn currency(country: &Country, all: &[Country]) -> Option<Fact> {
    let Country { name, currency_name: currency, currency_code: code, .. } = country;
    let place = in_sentence(country);
    let names = [
        format!("What is the currency of {place}?"),
        format!("Which currency is used in {place}?"),
    ];
    let codes = [format!("What is the three-letter code of the currency of {place}?")];
    let backward = [format!("In which country is the {currency} the currency?")];

    let clear = is_nameable(country) && is_unique(all, |other| &other.currency_code, code);
    (!code.is_empty()).then(|| {
        fact(country, "currency")
            .ask_if(currency.is_ascii(), currency, names)
            .ask(code, codes)
            .ask_if(clear, name, backward)
    })
}

/// Once for each currency, at the first country that has it.
fn currency_code(country: &Country, all: &[Country]) -> Option<Fact> {
    let Country { currency_name: currency, currency_code: code, .. } = country;
    let first = all.iter().find(|other| other.currency_code == *code)?;
    let forward = [format!("What is the ISO code of the {currency}?")];
    let backward = [format!("Which currency has the ISO code {code}?")];
    let fact = Fact::new(format!("social/currency/{code}/code"));

    (!code.is_empty() && first.iso2 == country.iso2)
        .then(|| fact.ask(code, forward).ask_if(currency.is_ascii(), currency, backward))
}

fn language(country: &Country, _: &[Country]) -> Option<Fact> {
    let place = in_sentence(country);
    let language = &country.official_language;
    let questions = [
        format!("What is the official language of {place}?"),
        format!("Which language is the official one in {place}?"),
        format!("Name the official language of {place}."),
    ];
    (!language.is_empty()).then(|| fact(country, "language").ask(language, questions))
}

fn calling_code(country: &Country, all: &[Country]) -> Option<Fact> {
    let Country { name, calling_code: code, .. } = country;
    let place = in_sentence(country);
    let forward = [
        format!("What is the international calling code of {place}?"),
        format!("Which country calling code, in digits, does {place} have?"),
    ];
    let backward = [format!("Which country has the international calling code {code}?")];

    let clear = is_nameable(country) && is_unique(all, |other| &other.calling_code, code);
    // Codes within the North American plan are written in several ways.
    let plain = !code.is_empty() && code.chars().all(|c| c.is_ascii_digit());
    plain.then(|| fact(country, "calling_code").ask(code, forward).ask_if(clear, name, backward))
}

fn two_letter_code(country: &Country, _: &[Country]) -> Option<Fact> {
    Some(code(country, "two-letter", "iso2", &country.iso2))
}

fn three_letter_code(country: &Country, _: &[Country]) -> Option<Fact> {
    Some(code(country, "three-letter", "iso3", &country.iso3))
}

fn code(country: &Country, length: &str, property: &str, code: &str) -> Fact {
    let place = in_sentence(country);
    let forward = [
        format!("What is the {length} ISO country code of {place}?"),
        format!("Which {length} ISO code stands for {place}?"),
    ];
    let backward = [format!("Which country has the {length} ISO code {code}?")];
    fact(country, property).ask(code, forward).ask_if(is_nameable(country), &country.name, backward)
}
