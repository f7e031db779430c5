//! A reader of the page's tags, strict enough that foreign text which became markup is noticed.
#![allow(dead_code, reason = "each test binary uses a part")]

/// A start tag.
#[derive(Debug, Clone)]
pub struct Tag {
    pub name: String,
    pub attributes: String,
}

impl Tag {
    /// Names and values. Panics on what is not `name="value"`.
    pub fn attributes(&self) -> Vec<(&str, &str)> {
        let (mut found, mut rest) = (Vec::new(), self.attributes.trim());
        while !rest.is_empty() {
            let (name, after) =
                rest.split_once("=\"").unwrap_or_else(|| panic!("not an attribute: {rest}"));
            let (value, after) =
                after.split_once('"').unwrap_or_else(|| panic!("not closed: {rest}"));
            assert!(
                name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'),
                "not a name: {name}"
            );
            found.push((name, value));
            rest = after.trim_start();
        }
        found
    }
}

const VOID: [&str; 2] = ["meta", "link"];

/// The page's start tags, in order. Panics on a tag that is not closed, or closes another one.
pub fn tags(page: &str) -> Vec<Tag> {
    let (mut tags, mut open) = (Vec::<Tag>::new(), Vec::<String>::new());
    let mut rest = page.strip_prefix("<!DOCTYPE html>").unwrap_or_else(|| panic!("no doctype"));
    while let Some(start) = rest.find('<') {
        let end = start
            + rest[start..]
                .find('>')
                .unwrap_or_else(|| panic!("a tag does not end: {}", head(&rest[start..])));
        let inside = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = inside.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "wrongly closed before: {}", head(rest));
            continue;
        }
        let (name, attributes) = inside.split_once(' ').unwrap_or((inside, ""));
        let (name, self_closing) = (name.trim_end_matches('/'), inside.ends_with('/'));
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "not a tag: <{inside}>");
        tags.push(Tag {
            name: name.to_owned(),
            attributes: attributes.trim_end_matches('/').to_owned(),
        });
        if !self_closing && !VOID.contains(&name) {
            open.push(name.to_owned());
        }
        if name == "style" {
            rest =
                &rest[rest.find("</style>").unwrap_or_else(|| panic!("the style does not end"))..];
        }
    }
    assert!(open.is_empty(), "not closed: {open:?}");
    tags
}

fn head(text: &str) -> String {
    text.chars().take(80).collect()
}
