//! Every reward in a configuration file.

// Functions outside #[test] unwrap, too.
#![allow(clippy::unwrap_used)]

use posttrain_reward::compose::GoOn;
use posttrain_reward::verifiers::{AnswerConfig, MathConfig, Unreadable};
use posttrain_reward::{RewardConfig, Truncated};

const SERVER: &str =
    r#"server = { model = "m", http = { endpoints = ["http://localhost:1/v1"] } }"#;

fn parse(text: &str) -> Result<RewardConfig, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

/// A configuration of each kind, with a field of its own.
fn kinds() -> Vec<(&'static str, String)> {
    let kinds = [
        (
            "answer",
            "strictness = \"whole_response\"\ntruncated = \"wrong\"\n[numeric]\nabsolute_tolerance = 1",
        ),
        ("math", "decimals = 3\nunreadable = \"undecided\"\nunits = \"required\""),
        ("choice", "options = \"choices\"\nmax_bytes = 100"),
        ("contains_all", "max_words = 5"),
        ("exact", ""),
        ("f1", ""),
        (
            "json",
            "relative_tolerance = 0.5\nextra_keys = \"ignored\"\nschema = { type = \"object\" }",
        ),
        ("list", "order = \"kept\"\nseparators = [\",\"]\npartial = \"share\""),
        ("normalized", "normalizer = { case = \"sensitive\" }"),
        ("numeric", "relative_tolerance = 0.5"),
        ("regex", "max_bytes = 100"),
        ("format", "tags = { tags = [\"a\"], opening = \"written\" }"),
        ("length", "max_length = 100\nbuffer = 10"),
        ("judge", "judge = { votes = 1 }"),
        ("rubric", "judge = { criteria = [{ name = \"a\", weight = 1.0, description = \"b\" }] }"),
        ("pair", "judge = { opponent = \"reference\" }"),
        ("subprocess", "program = [\"sh\"]"),
        ("remote", "client = { endpoints = [\"http://localhost:1\"] }"),
        ("code", "interpreter = [\"sh\"]"),
        ("spreadsheet", "bad_answer = \"wrong\""),
        ("spreadsheet_code", "code = { interpreter = [\"sh\"] }"),
        ("weighted_sum", "terms = [{ weight = 1.0, reward = { kind = \"exact\" } }]"),
        ("product", "rewards = [{ kind = \"exact\" }]"),
        ("first_that_decides", "go_on = \"any_failure\"\nrewards = [{ kind = \"exact\" }]"),
        ("per_domain", "rewards = { law = { kind = \"exact\" } }"),
    ];
    let served = |kind: &str| ["judge", "rubric", "pair"].contains(&kind);
    let text = |kind: &str, fields: &str| {
        let server = if served(kind) { SERVER } else { "" };
        format!("kind = \"{kind}\"\n{server}\n{fields}")
    };
    kinds.into_iter().map(|(kind, fields)| (kind, text(kind, fields))).collect()
}

#[test]
fn every_kind_is_read_written_and_built() {
    for (kind, text) in kinds() {
        let config = parse(&text).unwrap_or_else(|error| panic!("{kind}: {error}"));
        let written = toml::to_string(&config).unwrap();
        assert_eq!(parse(&written).unwrap(), config, "{kind}: {written}");
        config.build().unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
}

#[test]
fn a_field_that_a_kind_does_not_have_is_refused_by_name() {
    for (kind, text) in kinds() {
        let head = format!("kind = \"{kind}\"\n");
        let with_more = text.replace(&head, &format!("{head}no_such_field = 1\n"));
        let error = parse(&with_more).unwrap_err();
        // `format` is one of two things, and a third is no field but another variant.
        assert!(error.contains("no_such_field") || kind == "format", "{kind}: {error}");
    }
    assert!(parse("kind = \"no_such_kind\"").unwrap_err().contains("no_such_kind"));
    assert!(parse("decimals = 3").unwrap_err().contains("kind"));
}

#[test]
fn the_options_are_those_of_the_fields() {
    let RewardConfig::Answer(answer) = parse(&kinds()[0].1).unwrap() else {
        panic!("another kind")
    };
    assert_eq!((answer.truncated, answer.rule.numeric.absolute_tolerance), (Truncated::Wrong, 1.0));
    let RewardConfig::Math(math) = parse(&kinds()[1].1).unwrap() else { panic!("another kind") };
    assert_eq!((math.unreadable, math.rule.decimals), (Unreadable::Undecided, 3));
    let first = parse("kind = \"first_that_decides\"\nrewards = [{ kind = \"exact\" }]").unwrap();
    assert!(matches!(first, RewardConfig::FirstThatDecides { go_on: GoOn::CannotSay, .. }));
}

/// Spellings of earlier versions, in files and on command lines.
#[test]
fn earlier_spellings_are_read() {
    let pairs = [
        (
            "kind = \"normalised\"\n[normaliser]\ncase = \"sensitive\"",
            "kind = \"normalized\"\n[normalizer]\ncase = \"sensitive\"",
        ),
        (
            "kind = \"answer\"\n[normaliser]\narticles = \"kept\"",
            "kind = \"answer\"\n[normalizer]\narticles = \"kept\"",
        ),
        (
            "kind = \"contains-all\"\n[normaliser]\narticles = \"kept\"",
            "kind = \"contains_all\"\n[normalizer]\narticles = \"kept\"",
        ),
        (
            "kind = \"list\"\n[normaliser]\narticles = \"kept\"",
            "kind = \"list\"\n[normalizer]\narticles = \"kept\"",
        ),
        (
            "kind = \"choice\"\n[normaliser]\narticles = \"kept\"",
            "kind = \"choice\"\n[normalizer]\narticles = \"kept\"",
        ),
        (
            "kind = \"regex\"\n[normaliser]\narticles = \"kept\"",
            "kind = \"regex\"\n[normalizer]\narticles = \"kept\"",
        ),
    ];
    for (earlier, now) in pairs {
        assert_eq!(parse(earlier).unwrap(), parse(now).unwrap(), "{earlier}");
    }
}

#[test]
fn a_value_out_of_its_range_is_found_when_it_is_built() {
    for text in [
        "kind = \"math\"\ndecimals = 1000",
        "kind = \"answer\"\norder = []",
        "kind = \"numeric\"\nabsolute_tolerance = -1",
        "kind = \"product\"\nrewards = []",
        "kind = \"weighted_sum\"\nterms = []",
        "kind = \"first_that_decides\"\nrewards = []",
        "kind = \"per_domain\"\nrewards = { law = { kind = \"json\", max_bytes = 0 } }",
    ] {
        assert_eq!(parse(text).unwrap().build().err().unwrap().cause(), "invalid_config", "{text}");
    }
}

#[test]
fn the_defaults_are_those_of_the_verifiers() {
    assert_eq!(parse("kind = \"answer\"").unwrap(), RewardConfig::Answer(AnswerConfig::default()));
    assert_eq!(parse("kind = \"math\"").unwrap(), RewardConfig::Math(MathConfig::default()));
    assert_eq!(toml::from_str::<MathConfig>("").unwrap(), MathConfig::default());
}

/// The `[reward]` table of a file.
fn reward_of(text: &str) -> RewardConfig {
    let file: toml::Table = text.parse().unwrap();
    file["reward"].clone().try_into().unwrap()
}

/// The block of `docs/rewards.md`, which readers copy.
#[test]
fn the_documented_configuration_is_one() {
    let page = include_str!("../../../docs/rewards.md").lines();
    let block = page.skip_while(|line| line.trim() != "[reward]");
    let block: Vec<&str> =
        block.take_while(|line| line.is_empty() || line.starts_with("    ")).collect();
    let config = reward_of(&block.join("\n"));
    let RewardConfig::FirstThatDecides { rewards, .. } = &config else { panic!("{config:?}") };
    let [RewardConfig::Math(math), RewardConfig::Judge(judge)] = rewards.as_slice() else {
        panic!("{rewards:?}")
    };
    assert_eq!(math.unreadable, Unreadable::Undecided);
    assert_eq!(judge.server.http.endpoints.len(), 1);
    config.build().unwrap();
}

/// The files that the experiment's examples run.
#[test]
fn the_examples_configurations_are_read() {
    let answer = RewardConfig::Answer(AnswerConfig::default());
    assert_eq!(reward_of(include_str!("../../../examples/configs/demo.toml")), answer);
    assert_eq!(reward_of(include_str!("../../../examples/configs/full-cpu.toml")), answer);
    let RewardConfig::Judge(served) =
        reward_of(include_str!("../../../examples/configs/ramp.toml"))
    else {
        panic!("another kind")
    };
    assert_eq!(
        (served.server.model.as_str(), served.judge.votes),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", 1)
    );
    assert_eq!(served.server.http.endpoints.len(), 1);
}
