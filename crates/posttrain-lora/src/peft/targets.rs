//! Which modules an `adapter_config.json` targets: PEFT's `check_target_module_exists`.

use super::config::Fields;
use crate::config::{is_suffix, unknown_target};
use crate::{LoraConfig, LoraError, ModuleSpec, TargetModules};
use fancy_regex::Regex;
use serde_json::Value;

/// PEFT's own way to the number of a layer, where no pattern is given: the first number in a path.
const LAYER: &str = r"^.*?\.[^.]*\.(?P<idx>\d+)\.";

pub(super) struct Targets {
    included: Names,
    excluded: Option<Names>,
    layers: Option<Layers>,
}

/// Modules by the ends of their paths, or by a regular expression of the whole path.
enum Names {
    AllLinear,
    Ends(Vec<String>),
    Whole { regex: Regex, written: String },
}

/// The layers that are adapted, where not all are.
struct Layers {
    numbers: Vec<i64>,
    /// Where a path has its layer's number.
    places: Vec<Regex>,
}

impl Targets {
    pub fn read(fields: &Fields) -> Result<Self, LoraError> {
        let names = "\"all-linear\", a regular expression, or a list of module names";
        let included = match Names::read(fields, "target_modules", names)? {
            Some(Names::Whole { written, .. }) if written == "all-linear" => Names::AllLinear,
            Some(Names::Ends(list)) if list.is_empty() => {
                return Err(fields.unsupported("target_modules", names));
            }
            Some(names) => names,
            None => return Err(fields.unsupported("target_modules", names)),
        };

        let excluded = Names::read(
            fields,
            "exclude_modules",
            "a regular expression or a list of module names",
        )?;
        let layers = Layers::read(fields)?;
        if matches!(included, Names::Whole { .. }) && layers.is_some() {
            let alone = "null beside a regular expression in `target_modules`";
            return Err(fields.unsupported("layers_to_transform", alone));
        }
        Ok(Self { included, excluded, layers })
    }

    /// The indices of the targeted modules.
    pub fn select(&self, modules: &[ModuleSpec]) -> Result<Vec<usize>, LoraError> {
        if let Names::Ends(names) = &self.included {
            for name in names {
                if !modules.iter().any(|module| is_suffix(&module.path, name)) {
                    return Err(unknown_target(name, modules));
                }
            }
        }

        let mut selected = Vec::new();
        for (index, module) in modules.iter().enumerate() {
            if self.includes(module)? && !self.excludes(module)? {
                selected.push(index);
            }
        }
        match &self.included {
            Names::Whole { written, .. } if selected.is_empty() => {
                Err(unknown_target(written, modules))
            }
            _ => Ok(selected),
        }
    }

    /// The same modules as names, which every reader of a configuration knows.
    pub fn as_names(&self, selected: &[usize], modules: &[ModuleSpec]) -> TargetModules {
        if self.excluded.is_none() && self.layers.is_none() {
            match &self.included {
                Names::AllLinear => return TargetModules::AllLinear,
                Names::Ends(names) => return TargetModules::Names(names.clone()),
                Names::Whole { .. } => {}
            }
        }

        let mut names: Vec<String> =
            selected.iter().map(|&index| modules[index].name().to_owned()).collect();
        names.sort_unstable();
        names.dedup();
        let short =
            LoraConfig { target_modules: TargetModules::Names(names), ..LoraConfig::default() };
        if short.select(modules).is_ok_and(|by_name| by_name == selected) {
            return short.target_modules;
        }
        TargetModules::Names(selected.iter().map(|&index| modules[index].path.clone()).collect())
    }

    fn includes(&self, module: &ModuleSpec) -> Result<bool, LoraError> {
        let path = &module.path;
        let in_layers = || self.layers.as_ref().map_or(Ok(true), |layers| layers.contain(path));
        match &self.included {
            Names::AllLinear => Ok(!module.head && in_layers()?),
            // A path that is written out is meant whatever its layer.
            Names::Ends(names) if names.contains(path) => Ok(true),
            names => Ok(names.match_path(path)? && in_layers()?),
        }
    }

    fn excludes(&self, module: &ModuleSpec) -> Result<bool, LoraError> {
        self.excluded.as_ref().map_or(Ok(false), |names| names.match_path(&module.path))
    }
}

impl Names {
    fn read(
        fields: &Fields,
        name: &str,
        expected: &'static str,
    ) -> Result<Option<Self>, LoraError> {
        let refused = || fields.unsupported(name, expected);
        match fields.get(name) {
            None => Ok(None),
            Some(Value::String(written)) => {
                // Alone first: within other brackets, brackets that do not match might.
                Regex::new(written).map_err(|_| refused())?;
                let regex = Regex::new(&format!(r"^(?:{written})$")).map_err(|_| refused())?;
                Ok(Some(Self::Whole { regex, written: written.clone() }))
            }
            Some(Value::Array(list)) => {
                let names: Option<Vec<_>> =
                    list.iter().map(|name| name.as_str().map(str::to_owned)).collect();
                names.map(Self::Ends).map(Some).ok_or_else(refused)
            }
            Some(_) => Err(refused()),
        }
    }

    fn match_path(&self, path: &str) -> Result<bool, LoraError> {
        match self {
            Self::AllLinear => Ok(true),
            Self::Ends(names) => Ok(names.iter().any(|name| is_suffix(path, name))),
            Self::Whole { regex, written } => {
                regex.is_match(path).map_err(LoraError::pattern(written))
            }
        }
    }
}

impl Layers {
    fn read(fields: &Fields) -> Result<Option<Self>, LoraError> {
        let expected = "a whole number or a list of them";
        let refused = || fields.unsupported("layers_to_transform", expected);
        let numbers: Vec<i64> = match fields.get("layers_to_transform") {
            None => Vec::new(),
            Some(Value::Array(list)) => {
                list.iter().map(Value::as_i64).collect::<Option<_>>().ok_or_else(refused)?
            }
            Some(number) => vec![number.as_i64().ok_or_else(refused)?],
        };

        let expected = "a pattern or a list of them, beside `layers_to_transform`";
        let refused = || fields.unsupported("layers_pattern", expected);
        let patterns: Vec<&str> = match fields.get("layers_pattern") {
            None => Vec::new(),
            Some(Value::Array(list)) => {
                list.iter().map(Value::as_str).collect::<Option<_>>().ok_or_else(refused)?
            }
            Some(pattern) => vec![pattern.as_str().ok_or_else(refused)?],
        };
        if numbers.is_empty() {
            return if patterns.is_empty() { Ok(None) } else { Err(refused()) };
        }

        let place =
            |pattern: &&str| Regex::new(&format!(r"^(?:(?:^|.*?\.){pattern}\.(?P<idx>\d+)\.)"));
        let places = match patterns.as_slice() {
            [] => Regex::new(LAYER).map(|place| vec![place]),
            patterns => patterns.iter().map(place).collect(),
        };
        Ok(Some(Self { numbers, places: places.map_err(|_| refused())? }))
    }

    fn contain(&self, path: &str) -> Result<bool, LoraError> {
        for place in &self.places {
            let found = place.captures(path).map_err(LoraError::pattern(place.as_str()))?;
            if let Some(found) = found {
                let number = found.name("idx").and_then(|number| number.as_str().parse().ok());
                return Ok(number.is_some_and(|number| self.numbers.contains(&number)));
            }
        }
        Ok(false)
    }
}
