//! The files of a model at a commit, and which of them are wanted.

use crate::{HubError, HubModel};
use serde_json::Value;
use std::path::{Component, Path};

/// A file as the hub lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub name: String,
    /// Bytes, where the hub says.
    pub size: Option<u64>,
    /// Of files in large storage.
    pub sha256: Option<String>,
}

impl Listed {
    /// Whether it holds weights: safetensors at the top.
    pub fn is_weights(&self) -> bool {
        self.name.ends_with(".safetensors")
            && self.name.starts_with("model")
            && !self.name.contains('/')
    }
}

/// What stands beside the weights, where the model has it.
const BESIDE: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
];

/// The commit and the files of the hub's answer.
pub(crate) fn parse(model: &HubModel, answer: &Value) -> Result<(String, Vec<Listed>), HubError> {
    let broken = |reason: &str| HubError::Request {
        model: model.to_string(),
        doing: "reading the list of its files".into(),
        reason: reason.into(),
        advice: "",
    };

    let commit = answer
        .get("sha")
        .and_then(Value::as_str)
        .ok_or_else(|| broken("no commit (`sha`) in it"))?;
    if commit.is_empty() || !commit.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(broken("its commit (`sha`) is none"));
    }

    let files = answer
        .get("siblings")
        .and_then(Value::as_array)
        .ok_or_else(|| broken("no files (`siblings`) in it"))?;

    let mut listed = Vec::with_capacity(files.len());
    for file in files {
        let name = file
            .get("rfilename")
            .and_then(Value::as_str)
            .ok_or_else(|| broken("a file without a name"))?;
        let inside = Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
        if !inside || name.is_empty() || name.contains('\\') {
            return Err(HubError::FileName { model: model.to_string(), file: name.into() });
        }

        let large = file.get("lfs");
        let sha256 =
            large.and_then(|l| l.get("sha256")).and_then(Value::as_str).map(str::to_lowercase);
        listed.push(Listed {
            name: name.into(),
            size: file.get("size").and_then(Value::as_u64),
            sha256,
        });
    }

    Ok((commit.into(), listed))
}

/// The files that a model is made of: everything beside the weights, and its safetensors at the
/// top.
pub(crate) fn wanted(model: &HubModel, files: Vec<Listed>) -> Result<Vec<Listed>, HubError> {
    if !files.iter().any(Listed::is_weights) {
        return Err(match files.iter().find(|file| is_pickle(file)) {
            Some(file) => HubError::Pickle { model: model.to_string(), file: file.name.clone() },
            None => HubError::NoWeights { model: model.to_string() },
        });
    }

    Ok(files.into_iter().filter(|f| f.is_weights() || BESIDE.contains(&&*f.name)).collect())
}

fn is_pickle(file: &Listed) -> bool {
    [".bin", ".pt", ".pth", ".ckpt"].iter().any(|end| file.name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn model() -> HubModel {
        HubModel::parse("a/b").unwrap()
    }

    fn wanted_of(names: &[&str]) -> Result<Vec<String>, HubError> {
        let files: Vec<Value> = names.iter().map(|n| json!({"rfilename": n})).collect();
        let (_, files) = parse(&model(), &json!({"sha": "abc1", "siblings": files}))?;
        Ok(wanted(&model(), files)?.into_iter().map(|f| f.name).collect())
    }

    #[test]
    fn weights_and_what_stands_beside_them_are_wanted_and_nothing_else() {
        let names = [
            "README.md",
            "config.json",
            "model.safetensors",
            "pytorch_model.bin",
            "onnx/model.safetensors",
        ];
        assert_eq!(wanted_of(&names).unwrap(), ["config.json", "model.safetensors"]);
        assert!(matches!(
            wanted_of(&["config.json", "pytorch_model.bin"]),
            Err(HubError::Pickle { .. })
        ));
        assert!(matches!(wanted_of(&["config.json"]), Err(HubError::NoWeights { .. })));
    }

    #[test]
    fn a_hostile_list_is_refused() {
        for name in ["../x.safetensors", "/etc/model.safetensors", "a/../../b", ""] {
            assert!(
                matches!(wanted_of(&["model.safetensors", name]), Err(HubError::FileName { .. })),
                "{name}"
            );
        }
        for answer in
            [json!({}), json!({"sha": "../..", "siblings": []}), json!({"sha": "a"}), json!([])]
        {
            assert!(matches!(parse(&model(), &answer), Err(HubError::Request { .. })), "{answer}");
        }
    }
}
