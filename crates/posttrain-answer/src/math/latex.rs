//! LaTeX's commands in the lexer.

use crate::math::command::{Command, blackboard, command, plain_word};
use crate::math::lexer::{LONG, Lexer};
use crate::math::token::{Brackets, Fence, Token, Unread};
use crate::math::value::Sign;

/// The longest word, subscript, command or text.
const MAX_NAME: usize = 256;

impl Lexer {
    pub(crate) fn backslash<'t>(&mut self, after: &'t str) -> Result<&'t str, Unread> {
        let length = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (name, rest) = after.split_at(length);
        match bounded(name)? {
            "" => self.escape(after),
            "begin" => self.begin(rest),
            "end" => self.end(rest),
            "text" | "textbf" | "textit" | "textrm" | "textnormal" | "mbox" | "hbox" | "mathrm"
            | "mathbf" | "mathit" | "mathsf" | "operatorname" | "rm" | "bf" | "emph" | "texttt" => {
                self.text(name, rest)
            }
            "mathbb" | "mathcal" | "Bbb" => self.blackboard(rest),
            "overline" | "bar" | "vec" | "hat" | "tilde" | "overrightarrow" | "widehat" => {
                self.accent(name, rest)
            }
            "not" => self.not(rest),
            // `\quadx`, where a space is missing.
            _ if name.len() > 4 && name.starts_with("quad") => Ok(&after[4..]),
            "cdots" | "ldots" | "dots" => Err(Unread::Syntax),
            "left" | "right" => Ok(delimiter(rest)),
            _ => {
                match command(name).ok_or(Unread::Syntax)? {
                    Command::Token(Token::Open(fence)) => self.open(fence),
                    Command::Token(Token::Close(fence)) => self.close(fence),
                    Command::Token(token) => self.push(token),
                    Command::Format => {}
                }
                Ok(rest)
            }
        }
    }

    pub(crate) fn escape<'t>(&mut self, after: &'t str) -> Result<&'t str, Unread> {
        let Some(c) = after.chars().next() else { return Ok(after) };
        let rest = &after[c.len_utf8()..];
        match c {
            '{' => self.open(Fence::Brace),
            '}' => self.close(Fence::Brace),
            '|' => self.push(Token::Bar),
            '%' => self.push(Token::Percent),
            // `\\frac`, as JSON or Python escape it; elsewhere a new line.
            '\\' if self.matrices.is_empty()
                && rest.starts_with(|c: char| c.is_ascii_alphabetic()) =>
            {
                return Ok(after);
            }
            '\\' => {
                self.row();
                return Ok(row_spacing(rest));
            }
            '$' => self.push(Token::Text("$".to_owned())),
            // Spaces, and the marks that begin and end a formula.
            ',' | ';' | ':' | '!' | ' ' | '\n' | '(' | ')' | '[' | ']' | '&' | '#' | '_' | '"'
            | '\'' => {}
            _ => return Err(Unread::Syntax),
        }
        Ok(rest)
    }

    pub(crate) fn begin<'t>(&mut self, rest: &'t str) -> Result<&'t str, Unread> {
        let (name, rest) = argument(rest).ok_or(Unread::Syntax)?;
        let brackets = match name.trim_end_matches('*') {
            "matrix" | "pmatrix" | "bmatrix" | "Bmatrix" | "smallmatrix" | "array" => Brackets::Any,
            "vmatrix" => Brackets::Bars,
            "cases" | "aligned" | "align" | "gathered" | "split" => Brackets::Lines,
            _ => return Err(Unread::Syntax),
        };
        self.matrices.push(brackets);
        if brackets != Brackets::Lines {
            self.push(Token::Matrix(brackets));
        }
        // The columns of an array: `{cc|c}`.
        let columns = argument(rest).filter(|(columns, _)| {
            name == "array" && columns.bytes().all(|c| b"clr| ".contains(&c))
        });
        Ok(columns.map_or(rest, |(_, rest)| rest))
    }

    pub(crate) fn end<'t>(&mut self, rest: &'t str) -> Result<&'t str, Unread> {
        let (_, rest) = argument(rest).ok_or(Unread::Syntax)?;
        match self.matrices.pop() {
            Some(Brackets::Lines) => {}
            Some(_) => self.push(Token::EndMatrix),
            None => return Err(Unread::Syntax),
        }
        Ok(rest)
    }

    /// `\text{…}`: a separator, a number, a letter, or words.
    pub(crate) fn text<'t>(&mut self, command: &str, rest: &'t str) -> Result<&'t str, Unread> {
        let Some((inner, rest)) = argument(rest).filter(|_| command != "rm" && command != "bf")
        else {
            return Ok(rest);
        };
        let inner = bounded(inner)?;
        let plain: String =
            inner.chars().map(|c| if c == '~' { ' ' } else { c }).filter(|c| *c != '\\').collect();
        let plain = plain.trim();
        let mut words = plain.split_whitespace().peekable();
        let first = words.peek().copied().unwrap_or("");
        let joins =
            |word: &str| word.eq_ignore_ascii_case("and") || word.eq_ignore_ascii_case("or");
        if joins(first.trim_matches(',')) {
            self.join(first.trim_matches(','));
            words.next();
        }
        let mut kept: Vec<&str> = words.collect();
        let last = kept.pop_if(|word| joins(word));
        self.words(command, &kept.join(" "))?;
        if let Some(last) = last {
            self.join(last);
        }
        Ok(rest)
    }

    pub(crate) fn join(&mut self, word: &str) {
        self.push(if word.eq_ignore_ascii_case("or") { Token::Or } else { Token::And });
    }

    pub(crate) fn words(&mut self, command: &str, words: &str) -> Result<(), Unread> {
        let name = matches!(command, "mathrm" | "mathbf" | "mathit" | "mathsf" | "operatorname");
        let mut letters = words.chars();
        match (letters.next(), letters.next()) {
            (None, _) => {}
            (Some(c), _) if c.is_ascii_digit() || c == '-' && words.len() > 1 => {
                let mut rest = words;
                while let Some(c) = rest.chars().next() {
                    rest = self.step(rest, c)?;
                }
            }
            (Some(c), None) if c.is_ascii_alphabetic() => self.push(Token::Letter(c.to_string())),
            (Some(','), None) => self.push(Token::Comma),
            (Some('%'), None) => self.push(Token::Percent),
            _ => match plain_word(words)
                .filter(|token| name || matches!(token, Token::Percent | Token::Degree))
            {
                Some(token) => self.push(token),
                None => self.push(Token::Text(words.to_owned())),
            },
        }
        Ok(())
    }

    pub(crate) fn blackboard<'t>(&mut self, rest: &'t str) -> Result<&'t str, Unread> {
        let (inner, rest) = argument(rest).ok_or(Unread::Syntax)?;
        match blackboard(inner) {
            Some(set) => self.push(Token::Named(set)),
            None => self.push(Token::Letter(bounded(inner)?.trim().to_owned())),
        }
        Ok(rest)
    }

    /// A name with a mark above it; above digits behind a decimal point, a period:
    /// `0.1\overline{6}`.
    pub(crate) fn accent<'t>(&mut self, name: &str, rest: &'t str) -> Result<&'t str, Unread> {
        let (inner, rest) = argument(rest).ok_or(Unread::Syntax)?;
        let inner = bounded(inner)?.trim();
        if inner.is_empty() || inner.contains(['\\', '{']) {
            return Err(Unread::Syntax);
        }
        self.push(Token::Letter(format!("{name} {inner}")));
        Ok(rest)
    }

    /// `\not=`, `\not\in`
    pub(crate) fn not<'t>(&mut self, rest: &'t str) -> Result<&'t str, Unread> {
        let rest = rest.trim_start();
        if let Some(rest) = rest.strip_prefix('=') {
            self.push(Token::Sign(Sign::Unequal));
            return Ok(rest);
        }
        let rest = rest.strip_prefix("\\in").ok_or(Unread::Syntax)?;
        self.push(Token::NotIn);
        Ok(rest)
    }
}

/// What follows `\left` or `\right`: `\left.` is an invisible bracket.
fn delimiter(rest: &str) -> &str {
    let rest = rest.trim_start();
    rest.strip_prefix('.').unwrap_or(rest)
}

/// `[2pt]` after a row's end.
fn row_spacing(rest: &str) -> &str {
    let spacing = rest.trim_start().strip_prefix('[').and_then(|inner| inner.split_once(']'));
    let length = |inner: &str| {
        inner.len() <= 8
            && (inner.ends_with("pt") || inner.ends_with("em") || inner.ends_with("ex"))
    };
    spacing.filter(|(inner, _)| length(inner)).map_or(rest, |(_, rest)| rest)
}

pub(crate) fn bounded(name: &str) -> Result<&str, Unread> {
    if name.len() > MAX_NAME { Err(LONG) } else { Ok(name) }
}

/// A LaTeX argument, `{…}` with its braces balanced or one character, and what follows it.
pub(crate) fn argument(rest: &str) -> Option<(&str, &str)> {
    let rest = rest.trim_start();
    let Some(inner) = rest.strip_prefix('{') else {
        let length = match rest.strip_prefix('\\') {
            Some(name) => 1 + name.bytes().take_while(u8::is_ascii_alphabetic).count().max(1),
            None => rest.chars().next()?.len_utf8(),
        };
        return rest.split_at_checked(length);
    };
    let mut depth = 1;
    for (at, c) in inner.bytes().enumerate() {
        match c {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((&inner[..at], &inner[at + 1..]));
        }
    }
    None
}
