//! A template's tags, found without parsing its expressions.

use minijinja::{Error, ErrorKind};

/// A template in which transformers' own tags are those of the engine, and which needs no other
/// template.
///
/// `{% generation %}` marks the assistant's tokens for training masks. It renders nothing, but it
/// is a tag: `trim_blocks` takes the line end behind it, `lstrip_blocks` the blanks before it,
/// dashes more, and what is set inside stays inside. `{% with %}` has all of that.
///
/// # Errors
/// [`ErrorKind::SyntaxError`] for a tag that loads another template: `transformers` has none to
/// load, and the only one here is the template itself.
pub(super) fn without_own_tags(source: &str) -> Result<String, Error> {
    let mut rewritten = String::with_capacity(source.len());
    let mut rest = source;
    let mut in_raw = false;

    while let Some(at) = rest.find('{') {
        let (text, markup) = rest.split_at(at);
        rewritten.push_str(text);

        let length = markup_length(markup);
        let (tag, after) = markup.split_at(length);
        rest = after;

        match tag_name(tag) {
            Some(name) if in_raw => {
                in_raw = name != "endraw";
                rewritten.push_str(tag);
            }
            Some("raw") => {
                in_raw = true;
                rewritten.push_str(tag);
            }
            Some("generation") => rewritten.push_str(&tag.replacen("generation", "with", 1)),
            Some("endgeneration") => {
                rewritten.push_str(&tag.replacen("endgeneration", "endwith", 1))
            }
            Some(name @ ("include" | "import" | "from" | "extends")) => {
                let detail = format!("`{name}` loads another template, and there is none");
                return Err(Error::new(ErrorKind::SyntaxError, detail));
            }
            _ => rewritten.push_str(tag),
        }
    }

    Ok(rewritten + rest)
}

/// The bytes of the comment, expression or tag that `markup` begins with; of any other brace, its
/// own.
fn markup_length(markup: &str) -> usize {
    let close = match markup.as_bytes().get(1) {
        Some(b'#') => return markup.find("#}").map_or(markup.len(), |end| end + 2),
        Some(b'{') => "}}",
        Some(b'%') => "%}",
        _ => return 1,
    };

    let mut quote = None;
    for (at, c) in markup.char_indices().skip(2) {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if c == open && !is_escaped(&markup[..at]) => quote = None,
            (None, _) if markup[at..].starts_with(close) => return at + close.len(),
            _ => {}
        }
    }
    markup.len()
}

fn is_escaped(before: &str) -> bool {
    before.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// The first word of a tag.
fn tag_name(tag: &str) -> Option<&str> {
    let inside = tag.strip_prefix("{%")?.trim_start_matches(['-', '+']).trim_start();
    let end = inside.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(inside.len());

    Some(&inside[..end])
}

#[cfg(test)]
mod tests {
    use super::without_own_tags;

    #[test]
    fn a_tag_is_a_tag_however_it_is_written() {
        let cases = [
            ("{% generation %}x{% endgeneration %}", "{% with %}x{% endwith %}"),
            ("{%generation%}x{%endgeneration%}", "{%with%}x{%endwith%}"),
            ("{%- generation -%}x{%+ endgeneration +%}", "{%- with -%}x{%+ endwith +%}"),
            ("{%-\n  generation\n-%}", "{%-\n  with\n-%}"),
            ("{{ '{% generation %}' }}", "{{ '{% generation %}' }}"),
            ("{{ 'it\\'s {% generation %}' }}", "{{ 'it\\'s {% generation %}' }}"),
            ("{# {% generation %} #}", "{# {% generation %} #}"),
            (
                "{% raw %}{% generation %}{% endraw %}{% generation %}",
                "{% raw %}{% generation %}{% endraw %}{% with %}",
            ),
            ("{% set generation = '%}' %}", "{% set generation = '%}' %}"),
            ("{ {% if x", "{ {% if x"),
            ("{{", "{{"),
            ("é{% generation %}é", "é{% with %}é"),
        ];
        for (source, expected) in cases {
            assert_eq!(without_own_tags(source).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn a_template_loads_no_other() {
        for tag in [
            "{% include 'chat' %}",
            "{%- import 'chat' as c %}",
            "{% from 'chat' import x %}",
            "{%extends 'chat'%}",
        ] {
            assert!(without_own_tags(tag).is_err(), "{tag}");
        }
        assert!(without_own_tags("{% raw %}{% include 'chat' %}{% endraw %}").is_ok());
    }
}
